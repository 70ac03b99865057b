package limit

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"
	"github.com/sony/gobreaker/v2"
)

// Limiter counts in Redis, and by the same policies in memory while Redis is
// away, slow or full. It is safe for concurrent use.
type Limiter struct {
	client    redis.UniversalClient
	breaker   *gobreaker.CircuitBreaker[[]int64]
	memory    *Memory
	decisions *prometheus.CounterVec
}

// breather is how long Redis is left alone after it has failed twice.
const breather = time.Second

// New returns a limiter on client, whose patience bounds what a request may
// wait for Redis.
func New(client redis.UniversalClient, log *slog.Logger, reg prometheus.Registerer, now func() time.Time) *Limiter {
	l := &Limiter{
		client: client,
		memory: NewMemory(now),
		decisions: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "headgate_limiter_decisions_total", Help: "Decisions of the rate limiter, by policy, backend (redis or memory) and result.",
		}, []string{"policy", "backend", "result"}),
	}
	l.breaker = gobreaker.NewCircuitBreaker[[]int64](gobreaker.Settings{
		Name: "limiter", Timeout: breather,
		ReadyToTrip:  func(counts gobreaker.Counts) bool { return counts.ConsecutiveFailures >= 2 },
		IsSuccessful: func(err error) bool { return err == nil || errors.Is(err, context.Canceled) },
		OnStateChange: func(_ string, _, to gobreaker.State) {
			switch to {
			case gobreaker.StateOpen:
				log.Warn("rate limits are counted in memory: redis is away")
			case gobreaker.StateClosed:
				log.Info("rate limits are counted in redis again")
			case gobreaker.StateHalfOpen:
			}
		},
	})
	reg.MustRegister(l.decisions)
	return l
}

// take counts a request against every key, or against none if one of them is
// full. A key is a sorted set of the requests that passed, by Redis's time in
// microseconds, so never more than the limit pass in any window. It returns, for
// every key, what was in the window before and when its oldest leaves it.
var take = redis.NewScript(`
local t = redis.call('TIME')
local now = t[1] * 1000000 + t[2]
local free = true
local out = {}
for i, key in ipairs(KEYS) do
  local limit, window = tonumber(ARGV[2 * i]), tonumber(ARGV[2 * i + 1])
  redis.call('ZREMRANGEBYSCORE', key, '-inf', now - window)
  local count = redis.call('ZCARD', key)
  local reset = window
  if count > 0 then
    reset = redis.call('ZRANGE', key, 0, 0, 'WITHSCORES')[2] + window - now
  end
  if count >= limit then free = false end
  out[2 * i - 1], out[2 * i] = count, math.floor(reset)
end
if free then
  for i, key in ipairs(KEYS) do
    redis.call('ZADD', key, now, ARGV[1])
    redis.call('PEXPIRE', key, math.ceil(ARGV[2 * i + 1] / 1000))
  end
end
return out`)

// Take counts a request against every key if all of them let it pass, and
// against none otherwise. Keys without a limit count nothing; ok is false if
// none is left. It never fails: without Redis it counts in memory. tag is what
// the keys have in common, such as the client's address.
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
	d, err := l.takeRedis(ctx, tag, limited)
	if err != nil {
		backend = "memory"
		d = l.memory.Take(limited)
	}
	l.count(d, backend)
	return d, true
}

// TakeLocal is Take for limits that each gateway counts for itself, since a
// round trip to Redis would cost more than the limit is worth.
func (l *Limiter) TakeLocal(key Key) (d Decision, ok bool) {
	if key.Policy.Rate.Off() {
		return Decision{Allowed: true}, false
	}
	d = l.memory.Take([]Key{key})
	l.count(d, "memory")
	return d, true
}

func (l *Limiter) count(d Decision, backend string) {
	result := "allowed"
	if !d.Allowed {
		result = "denied"
	}
	l.decisions.WithLabelValues(d.Policy.Name, backend, result).Inc()
}

func (l *Limiter) takeRedis(ctx context.Context, tag string, keys []Key) (Decision, error) {
	names := make([]string, len(keys))
	args := []any{uuid.NewString()}
	for i, key := range keys {
		names[i] = key.name(hash(tag))
		args = append(args, key.Policy.Rate.Requests, key.Policy.Rate.Window.Microseconds())
	}
	found, err := l.breaker.Execute(func() ([]int64, error) {
		return take.Run(ctx, l.client, names, args...).Int64Slice()
	})
	if err != nil {
		return Decision{}, fmt.Errorf("count in redis: %w", err)
	}
	if len(found) != 2*len(keys) {
		return Decision{}, fmt.Errorf("count in redis: %d numbers for %d keys", len(found), len(keys))
	}
	var worst Decision
	for i, key := range keys {
		count, reset := int(found[2*i]), time.Duration(found[2*i+1])*time.Microsecond
		d := Decision{
			Allowed: count < key.Policy.Rate.Requests, Policy: key.Policy,
			Remaining: max(0, key.Policy.Rate.Requests-count-1), Reset: reset,
		}
		if i == 0 || d.tighter(worst) {
			worst = d
		}
	}
	return worst, nil
}
