package limit

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/redis/go-redis/v9"
)

// A key is a sorted set of what passed, by Redis's time in microseconds: members end
// in a colon and how many requests they stand for, so never more than the limit pass
// in any window. A lease bears the time of its end, when its last permit may be used.

// take counts a request against every key that has room if all those that are
// enforced have, and against none otherwise. It returns, for every key, what was in
// the window before and when its oldest leaves it. Members stand for one each here.
var take = redis.NewScript(`
local t = redis.call('TIME')
local now = t[1] * 1000000 + t[2]
local free = true
local out = {}
for i, key in ipairs(KEYS) do
  local limit, window, observe = tonumber(ARGV[3 * i - 1]), tonumber(ARGV[3 * i]), ARGV[3 * i + 1]
  redis.call('ZREMRANGEBYSCORE', key, '-inf', now - window)
  local count = redis.call('ZCARD', key)
  local reset = window
  if count > 0 then
    reset = redis.call('ZRANGE', key, 0, 0, 'WITHSCORES')[2] + window - now
  end
  if count >= limit and observe == '0' then free = false end
  out[2 * i - 1], out[2 * i] = count, math.floor(reset)
end
if free then
  for i, key in ipairs(KEYS) do
    if out[2 * i - 1] < tonumber(ARGV[3 * i - 1]) then
      redis.call('ZADD', key, now, ARGV[1] .. ':1')
      redis.call('PEXPIRE', key, math.ceil(ARGV[3 * i] / 1000))
    end
  end
end
return out`)

// lease grants as many permits as are wanted and left, to be used within their life.
// It returns how many, what was in the window before, and when its oldest leaves it.
// Nothing is wanted to look only.
var lease = redis.NewScript(`
local t = redis.call('TIME')
local now = t[1] * 1000000 + t[2]
local key, id = KEYS[1], ARGV[1]
local limit, window, want, life = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
redis.call('ZREMRANGEBYSCORE', key, '-inf', now - window)
local all = redis.call('ZRANGE', key, 0, -1, 'WITHSCORES')
local used = 0
for i = 1, #all, 2 do
  used = used + tonumber(string.match(all[i], ':(%d+)$'))
end
local reset = window
if #all > 0 then reset = all[2] + window - now end
local grant = math.max(0, math.min(want, limit - used))
if grant > 0 then
  redis.call('ZADD', key, now + life, id .. ':' .. grant)
  redis.call('PEXPIRE', key, math.ceil((window + life) / 1000))
end
return {grant, used, math.floor(reset)}`)

func (l *Limiter) takeRedis(ctx context.Context, tag string, keys []Key) ([]Decision, error) {
	tag = hash(tag)
	names := make([]string, len(keys))
	args := []any{uuid.NewString()}
	for i, key := range keys {
		names[i] = key.name(tag)
		args = append(args, key.Policy.Rate.Requests, key.Policy.Rate.Window.Microseconds(), flag(key.Policy.Rate.Observe))
	}
	found, err := l.ask(ctx, take, names, args...)
	if err != nil {
		return nil, err
	}
	if len(found) != 2*len(keys) {
		return nil, fmt.Errorf("count in redis: %d numbers for %d keys", len(found), len(keys))
	}
	decisions := make([]Decision, len(keys))
	for i, key := range keys {
		count, reset := int(found[2*i]), time.Duration(found[2*i+1])*time.Microsecond
		decisions[i] = Decision{
			Allowed: count < key.Policy.Rate.Requests, Policy: key.Policy,
			Remaining: max(0, key.Policy.Rate.Requests-count-1), Reset: reset,
		}
	}
	return decisions, nil
}

func flag(set bool) int {
	if set {
		return 1
	}
	return 0
}

// granted is what Redis says of a key that permits are leased from.
type granted struct {
	permits int
	used    int           // in the window, before
	reset   time.Duration // until the oldest leaves the window
}

// lease asks for permits of a key that has its own tag.
func (l *Limiter) lease(ctx context.Context, key Key, want int, life time.Duration) (granted, error) {
	return l.leaseTagged(ctx, key, key.Who, want, life)
}

func (l *Limiter) leaseTagged(ctx context.Context, key Key, tag string, want int, life time.Duration) (granted, error) {
	rate := key.Policy.Rate
	found, err := l.ask(ctx, lease, []string{key.name(hash(tag))},
		uuid.NewString(), rate.Requests, rate.Window.Microseconds(), want, life.Microseconds())
	if err != nil {
		return granted{}, err
	}
	if len(found) != 3 {
		return granted{}, fmt.Errorf("count in redis: %d numbers for a lease", len(found))
	}
	return granted{int(found[0]), int(found[1]), time.Duration(found[2]) * time.Microsecond}, nil
}

// State is where a key stands.
type State struct {
	Key
	Used    int
	Reset   time.Duration // until the oldest leaves the window; the whole window if nothing is in it
	Backend string        // redis, or memory while it is away
}

// Look returns where a key stands. tag is that of Take, or Who for keys of
// TakeLease, whose leased permits count as used.
func (l *Limiter) Look(ctx context.Context, tag string, key Key) State {
	found, err := l.leaseTagged(ctx, key, tag, 0, 0)
	if err != nil {
		d := l.memory.Look(key)
		used := key.Policy.Rate.Requests - d.Remaining
		if d.Allowed {
			used--
		}
		return State{Key: key, Used: used, Reset: d.Reset, Backend: "memory"}
	}
	return State{Key: key, Used: found.used, Reset: found.reset, Backend: "redis"}
}

// Clear forgets what passed of a key, everywhere but for what other gateways have
// leased, and reports whether there was anything.
func (l *Limiter) Clear(ctx context.Context, tag string, key Key) (bool, error) {
	had := l.memory.Clear(key)
	had = l.leases.clear(key) || had
	n, err := l.client.Del(ctx, key.name(hash(tag))).Result()
	if err != nil {
		return had, fmt.Errorf("clear in redis: %w", err)
	}
	return had || n > 0, nil
}
