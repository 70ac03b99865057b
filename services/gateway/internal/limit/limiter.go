package limit

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"
	"github.com/sony/gobreaker/v2"
	"golang.org/x/time/rate"
)

// Limiter counts in Redis, and by the same policies in memory while Redis is
// away, slow or full. It is safe for concurrent use.
type Limiter struct {
	client    redis.UniversalClient
	breaker   *gobreaker.CircuitBreaker[[]int64]
	memory    *Memory
	leases    *leases
	log       *slog.Logger
	decisions *prometheus.CounterVec
	inRedis   prometheus.Gauge

	counters sync.Map // of outcome to prometheus.Counter, which saves looking up each by its labels
	reported sync.Map // of a policy's name to *rate.Sometimes
}

// breather is how long Redis is left alone after it has failed twice.
const breather = time.Second

// reportEvery is how often it is logged what a policy that is observed would refuse.
const reportEvery = time.Minute

// New returns a limiter on client, whose patience bounds what a request may
// wait for Redis.
func New(client redis.UniversalClient, log *slog.Logger, reg prometheus.Registerer, now func() time.Time) *Limiter {
	l := &Limiter{
		client: client,
		memory: NewMemory(now),
		leases: newLeases(now),
		log:    log,
		decisions: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "headgate_limiter_decisions_total",
			Help: "Decisions of the rate limiter, by policy, backend (redis, lease or memory) and result (allowed, denied, or observed for what is only reported).",
		}, []string{"policy", "backend", "result"}),
		inRedis: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "headgate_limiter_redis_up", Help: "Whether limits are counted in Redis, for all gateways together: 1, or 0 while each counts for itself.",
		}),
	}
	l.inRedis.Set(1)
	l.breaker = gobreaker.NewCircuitBreaker[[]int64](gobreaker.Settings{
		Name: "limiter", Timeout: breather,
		ReadyToTrip:  func(counts gobreaker.Counts) bool { return counts.ConsecutiveFailures >= 2 },
		IsSuccessful: func(err error) bool { return err == nil || errors.Is(err, context.Canceled) },
		OnStateChange: func(_ string, from, to gobreaker.State) {
			switch {
			case to == gobreaker.StateOpen && from == gobreaker.StateClosed:
				log.Warn("rate limits are counted in memory: redis is away")
				l.inRedis.Set(0)
			case to == gobreaker.StateClosed:
				log.Info("rate limits are counted in redis again")
				l.inRedis.Set(1)
			}
		},
	})
	reg.MustRegister(l.decisions, l.inRedis)
	return l
}

// Take counts a request against every key if all of them let it pass, and
// against none otherwise. Keys without a limit count nothing, and those that are
// observed refuse nothing; ok is false if none is left. It never fails: without
// Redis it counts in memory. tag is what the keys have in common, such as the
// client's address.
func (l *Limiter) Take(ctx context.Context, tag string, keys ...Key) (d Decision, ok bool) {
	limited := make([]Key, 0, len(keys))
	for _, key := range keys {
		if !key.Policy.Rate.Off() {
			limited = append(limited, key)
		}
	}
	if len(limited) == 0 {
		return Decision{Allowed: true}, false
	}
	backend := "redis"
	found, err := l.takeRedis(ctx, tag, limited)
	if err != nil {
		backend = "memory"
		found = l.memory.Take(limited)
	}
	return l.judge(ctx, backend, found)
}

// TakeLease is Take for a limit that is high: permits are leased from Redis, many at
// a time if need be, since a round trip for each request would cost more than the
// limit is worth. Never more than the limit pass in any window, over all gateways.
// A client may be refused early by the permits that other gateways have leased and
// not used, and by what of a lease is counted for longer than it lives: a twentieth
// of the window.
func (l *Limiter) TakeLease(ctx context.Context, key Key) (d Decision, ok bool) {
	if key.Policy.Rate.Off() {
		return Decision{Allowed: true}, false
	}
	backend := "lease"
	found, err := l.leases.take(ctx, key, l.lease)
	if err != nil {
		backend = "memory"
		found = l.memory.Take([]Key{key})[0]
	}
	return l.judge(ctx, backend, []Decision{found})
}

// judge counts what was found of a request's keys, and decides.
func (l *Limiter) judge(ctx context.Context, backend string, found []Decision) (Decision, bool) {
	for _, d := range found {
		if d.Policy.Rate.Observe && !d.Allowed {
			l.count(outcome{d.Policy.Name, backend, "observed"})
			l.report(ctx, d.Policy)
		}
	}
	d, enforced := decide(found)
	switch {
	case !enforced:
	case d.Allowed:
		l.count(outcome{d.Policy.Name, backend, "allowed"})
	default:
		l.count(outcome{d.Policy.Name, backend, "denied"})
	}
	return d, enforced
}

type outcome struct{ policy, backend, result string }

func (l *Limiter) count(o outcome) {
	counter, ok := l.counters.Load(o)
	if !ok {
		counter, _ = l.counters.LoadOrStore(o, l.decisions.WithLabelValues(o.policy, o.backend, o.result))
	}
	counter.(prometheus.Counter).Inc()
}

func (l *Limiter) report(ctx context.Context, p Policy) {
	once, _ := l.reported.LoadOrStore(p.Name, &rate.Sometimes{Interval: reportEvery})
	once.(*rate.Sometimes).Do(func() {
		l.log.InfoContext(ctx, "an observed rate limit would refuse requests", "policy", p.Name, "limit", p.Rate.String())
	})
}

// ask runs a script, unless Redis has just failed.
func (l *Limiter) ask(ctx context.Context, script *redis.Script, names []string, args ...any) ([]int64, error) {
	found, err := l.breaker.Execute(func() ([]int64, error) {
		return script.Run(ctx, l.client, names, args...).Int64Slice()
	})
	if err != nil {
		return nil, fmt.Errorf("count in redis: %w", err)
	}
	return found, nil
}
