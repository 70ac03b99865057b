// Package ratelimit counts requests against rate limits: in Redis, where all gateways
// share one count, and in memory while Redis is unavailable. It knows no HTTP.
package ratelimit

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"
	"github.com/sony/gobreaker/v2"
	"golang.org/x/time/rate"
)

// Limiter counts requests in Redis, and in memory by the same policies while Redis is
// unavailable, slow or full. A change between the two gives no client a second limit: what
// one of them counted within the window, the other subtracts. Only a call that Redis
// executed after its timeout counts twice. It is safe for concurrent use.
type Limiter struct {
	now       func() time.Time
	client    redis.UniversalClient
	breaker   *gobreaker.CircuitBreaker[[]int64]
	memory    *Memory
	leases    *leases
	log       *slog.Logger
	decisions *prometheus.CounterVec
	inRedis   prometheus.Gauge
	up        atomic.Bool // the value of inRedis

	counters sync.Map // of outcome to prometheus.Counter, which saves looking up each by its labels
	reported sync.Map // of a policy's name to *rate.Sometimes
}

// maxFailures is how many calls to Redis must fail in a row to open the circuit breaker.
const maxFailures = 2

// openTimeout is how long the circuit breaker stays open.
const openTimeout = time.Second

// reportEvery is how often the log says that an observed policy would reject requests.
const reportEvery = time.Minute

// New returns a limiter on client, whose timeout bounds how long a request waits for
// Redis.
func New(client redis.UniversalClient, log *slog.Logger, reg prometheus.Registerer, now func() time.Time) *Limiter {
	l := &Limiter{
		now:    now,
		client: client,
		memory: NewMemory(now),
		leases: newLeases(now),
		log:    log,
		decisions: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "headgate_limiter_decisions_total",
			Help: "Rate limit decisions by policy, backend (redis, lease or memory) and result: allowed, denied, or observed if the policy would have denied but only reports.",
		}, []string{"policy", "backend", "result"}),
		inRedis: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "headgate_limiter_redis_up", Help: "1 if rate limits are counted in Redis, for all gateways together; 0 while each gateway counts in memory.",
		}),
	}
	l.breaker = gobreaker.NewCircuitBreaker[[]int64](gobreaker.Settings{
		Name: "limiter", Timeout: openTimeout,
		ReadyToTrip: func(counts gobreaker.Counts) bool { return counts.ConsecutiveFailures >= maxFailures },
		IsExcluded:  func(err error) bool { return errors.Is(err, context.Canceled) },
		OnStateChange: func(_ string, from, to gobreaker.State) {
			switch {
			case to == gobreaker.StateOpen && from == gobreaker.StateClosed:
				log.Warn("circuit breaker opened; counting rate limits in memory", "dependency", "redis", "failures", maxFailures)
			case to == gobreaker.StateClosed:
				log.Info("circuit breaker closed; counting rate limits in redis", "dependency", "redis")
			}
			if to == gobreaker.StateOpen {
				l.up.Store(false)
				l.inRedis.Set(0)
			}
		},
	})
	reg.MustRegister(l.decisions, l.inRedis)
	return l
}

// Take counts a request against every key if all of them let it pass, and against none
// otherwise. Keys without a limit are not counted, and observed ones reject nothing; ok
// is false if no enforced key is left. It never fails: without Redis it counts in
// memory. tag is what the keys have in common, such as the client's network.
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
	return l.decide(ctx, backend, found)
}

// TakeLease is Take for a high limit. It leases permits from Redis, many at a time for a
// frequent client, because a round trip for every request would cost more than the limit
// is worth. Never more than the limit pass in any window, over all gateways. A client may
// be rejected early, because other gateways hold permits that they have not used, and
// because a permit counts for up to a twentieth of the window longer than the window.
func (l *Limiter) TakeLease(ctx context.Context, key Key) (d Decision, ok bool) {
	if key.Policy.Rate.Off() {
		return Decision{Allowed: true}, false
	}
	backend := "lease"
	found, err := l.leases.take(ctx, key, l.lease)
	if err != nil {
		backend = "memory"
		inRedis, asOf := l.leases.reported(key)
		l.memory.Report(key, inRedis, asOf)
		found = l.memory.Take([]Key{key})[0]
	}
	return l.decide(ctx, backend, []Decision{found})
}

// decide combines the decisions for the keys of a request and counts the outcome.
func (l *Limiter) decide(ctx context.Context, backend string, found []Decision) (Decision, bool) {
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
		l.log.InfoContext(ctx, "observed rate limit would reject requests", "policy", p.Name, "limit", p.Rate.String())
	})
}

// ask runs a script, unless the circuit breaker is open.
func (l *Limiter) ask(ctx context.Context, script *redis.Script, names []string, args ...any) ([]int64, error) {
	found, err := l.breaker.Execute(func() ([]int64, error) {
		return script.Run(ctx, l.client, names, args...).Int64Slice()
	})
	if err != nil {
		return nil, fmt.Errorf("count in redis: %w", err)
	}
	if l.up.CompareAndSwap(false, true) {
		l.inRedis.Set(1)
	}
	return found, nil
}

// Run implements service.Runner: it asks Redis every second whether it can count, so that
// headgate_limiter_redis_up is right before the first request and without any.
func (l *Limiter) Run(ctx context.Context) error {
	tick := time.NewTicker(probeEvery)
	defer tick.Stop()
	for {
		l.Peek(ctx, probeKey.Subject, probeKey)
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

const probeEvery = time.Second

// probeKey counts nothing.
var probeKey = Key{Policy: Policy{Name: "probe", Rate: Rate{Requests: 1, Window: time.Minute}}, Subject: "probe"}
