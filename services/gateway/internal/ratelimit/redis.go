package ratelimit

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/redis/go-redis/v9"
)

// In Redis a key is a sorted set of the requests that passed, scored by Redis's time in
// microseconds. A member ends in a colon and the number of requests that it counts for,
// so never more than the limit pass in any window. A lease is scored by the time at
// which it expires, because its last permit may be used until then.

// takeScript counts a request against every key with room if all enforced keys have
// room, and against none otherwise. It returns for each key how many requests were in
// the window before, and when the oldest leaves it. Each member counts for one here.
var takeScript = redis.NewScript(`
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

// leaseScript grants up to the wanted number of permits, which expire after their life.
// It returns how many it granted, how many requests were in the window before, and when
// the oldest leaves it. With none wanted it only reads.
var leaseScript = redis.NewScript(`
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

// takeRedis counts a request in Redis. Redis does not know the requests that were counted in
// memory while it was unavailable, so they reduce the limits that it applies.
func (l *Limiter) takeRedis(ctx context.Context, tag string, keys []Key) ([]Decision, error) {
	tag = hash(tag)
	names, limits, resets := make([]string, len(keys)), make([]int, len(keys)), make([]time.Duration, len(keys))
	args := []any{uuid.NewString()}
	for i, key := range keys {
		names[i] = key.name(tag)
		limits[i], resets[i] = l.left(key)
		args = append(args, limits[i], key.Policy.Rate.Window.Microseconds(), observeArg(key.Policy.Rate))
	}
	found, err := l.ask(ctx, takeScript, names, args...)
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
			Allowed: count < limits[i], Policy: key.Policy,
			Remaining: max(0, limits[i]-count-1), Reset: min(reset, resets[i]),
		}
	}
	l.remember(keys, decisions, found)
	return decisions, nil
}

// remember tells the memory how many requests Redis has counted for each key.
func (l *Limiter) remember(keys []Key, decisions []Decision, found []int64) {
	worst, _ := decide(decisions)
	now := l.now()
	for i, key := range keys {
		count := int(found[2*i])
		if worst.Allowed && decisions[i].Allowed {
			count++
		}
		l.memory.Report(key, count, now)
	}
}

// left returns how much of the limit of a key Redis may use, and the time until more may be:
// the whole limit and window unless requests were counted in memory.
func (l *Limiter) left(key Key) (limit int, reset time.Duration) {
	rate := key.Policy.Rate
	n, reset := l.memory.Counted(key)
	if n == 0 {
		return rate.Requests, rate.Window
	}
	return max(0, rate.Requests-n), reset
}

// observeArg is the script's form of r.Observe.
func observeArg(r Rate) int {
	if r.Observe {
		return 1
	}
	return 0
}

// grant is the answer of Redis to a request for permits.
type grant struct {
	permits int
	used    int           // requests in the window before
	reset   time.Duration // until the oldest leaves the window
}

// lease asks for permits of a key whose subject is its tag.
func (l *Limiter) lease(ctx context.Context, key Key, want int, life time.Duration) (grant, error) {
	return l.leaseTagged(ctx, key, key.Subject, want, life)
}

func (l *Limiter) leaseTagged(ctx context.Context, key Key, tag string, want int, life time.Duration) (grant, error) {
	limit, reset := l.left(key)
	found, err := l.ask(ctx, leaseScript, []string{key.name(hash(tag))},
		uuid.NewString(), limit, key.Policy.Rate.Window.Microseconds(), want, life.Microseconds())
	if err != nil {
		return grant{}, err
	}
	if len(found) != 3 {
		return grant{}, fmt.Errorf("count in redis: %d numbers for a lease", len(found))
	}
	return grant{int(found[0]), int(found[1]), min(reset, time.Duration(found[2])*time.Microsecond)}, nil
}

// State says how much of a key's limit is used.
type State struct {
	Key
	Used    int
	Reset   time.Duration // until the oldest leaves the window; the whole window if nothing is in it
	Backend string        // redis, or memory while Redis is unavailable
}

// Peek returns the state of a key without counting a request. tag is that of Take, or
// the subject for keys of TakeLease, whose leased permits count as used.
func (l *Limiter) Peek(ctx context.Context, tag string, key Key) State {
	found, err := l.leaseTagged(ctx, key, tag, 0, 0)
	if err != nil {
		d := l.memory.Peek(key)
		used := key.Policy.Rate.Requests - d.Remaining
		if d.Allowed {
			used--
		}
		return State{Key: key, Used: used, Reset: d.Reset, Backend: "memory"}
	}
	n, _ := l.memory.Counted(key)
	return State{Key: key, Used: found.used + n, Reset: found.reset, Backend: "redis"}
}

// Clear resets a key everywhere, except for what other gateways have leased or have counted
// in memory, and reports whether any request was counted. It fails if Redis does.
func (l *Limiter) Clear(ctx context.Context, tag string, key Key) (bool, error) {
	had := l.memory.Clear(key)
	had = l.leases.clear(key) || had
	n, err := l.client.Del(ctx, key.name(hash(tag))).Result()
	if err != nil {
		return had, fmt.Errorf("clear in redis: %w", err)
	}
	return had || n > 0, nil
}
