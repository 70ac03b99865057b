package store

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"github.com/redis/go-redis/v9"
	"github.com/sony/gobreaker/v2"

	"github.com/headgate/headgate/pkg/bus"
	"github.com/headgate/headgate/pkg/service"
)

// peers tells all instances which profiles they must drop from their memories. An instance
// may use its memory only under a lease, which it renews with a script that registers the
// instance and returns all changes that it has not seen. So after a change was announced, an
// instance has dropped the profile, or it cannot renew its lease, which then runs out on the
// instance's own clock. A writer waits for the replies of all registered instances, and for
// the end of a lease if one does not reply. No clocks are compared. See ADR 17.
type peers struct {
	cache  *Cache
	outage *service.Outage
	id     string    // of this process
	since  time.Time // when it began; what until counts from
	until  atomic.Int64
	number atomic.Int64

	// Only run uses them.
	renewals     int
	registration string // empty if there is none
	generation   string // at the last renewal
	lastChange   string // ids of entries of the streams
	lastReply    string

	mu        sync.Mutex
	own       string    // the registration
	sureAt    time.Time // when the registry has every lease
	failingAt time.Time // since when renewals have failed; zero if the last one succeeded
	expected  map[string]*announcement
}

// registry is the value of each registered instance: it differs after each renewal.
type registry map[string]string

const (
	leaseFor   = 800 * time.Millisecond
	renewEvery = 200 * time.Millisecond
	renewAgain = time.Second // after a failure
	// leaseOver is when a lease has run out that was renewed by now, also on a clock that is
	// somewhat slower.
	leaseOver = leaseFor + 50*time.Millisecond

	// The braces put all keys into one slot of a Cluster.
	peersPrefix = "user:profile:peers:{v1}:"
	registryKey = peersPrefix + "registry"
	changesKey  = peersPrefix + "changes"
	repliesKey  = peersPrefix + "replies:" // and the id of the instance that reads them
	// repliesLifetime is longer than a writer waits for replies.
	repliesLifetime = time.Minute
	maxChanges      = 4096
)

func newPeers(cache *Cache, log *slog.Logger) *peers {
	outage := service.NewOutage(service.OutageConfig{
		Log: log, Failing: "could not renew the lease of the profile cache; profiles in memory are not used", Over: "lease of the profile cache renewed again",
		Reported: func(err error) bool {
			return errors.Is(err, bus.ErrUnavailable) || errors.Is(err, gobreaker.ErrOpenState) || errors.Is(err, gobreaker.ErrTooManyRequests)
		},
	})
	return &peers{
		outage: outage,
		cache:  cache, id: uuid.NewString(), since: time.Now(), expected: map[string]*announcement{},
		lastChange: "0-0", lastReply: "0-0",
	}
}

// mayUseMemory reports whether this instance has a lease.
func (p *peers) mayUseMemory() bool { return int64(time.Since(p.since)) < p.until.Load() }

// run keeps the lease and follows changes until ctx ends.
func (p *peers) run(ctx context.Context) {
	for ctx.Err() == nil {
		err := p.renew(ctx)
		if ctx.Err() == nil {
			p.record(ctx, err)
		}
		if err == nil {
			err = p.follow(ctx, time.Now().Add(renewEvery))
		}
		if err != nil {
			select {
			case <-ctx.Done():
			case <-time.After(renewAgain):
			}
		}
	}
	p.until.Store(0)
	p.cache.memory.flush()
	// Otherwise the next writer finds out.
	_ = p.cache.client.HDel(context.WithoutCancel(ctx), registryKey, p.id).Err()
}

// record remembers since when renewals have failed.
func (p *peers) record(ctx context.Context, err error) {
	p.outage.Record(ctx, "", err)
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case err == nil:
		p.failingAt = time.Time{}
	case p.failingAt.IsZero():
		p.failingAt = time.Now()
	}
}

// renewal registers an instance. If the registry still has its registration, which begins the
// value, it returns the changes and replies after those that the instance has seen. Otherwise
// the instance gets the new registration.
var renewal = redis.NewScript(`
local id, old, new, count = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local value = redis.call('HGET', KEYS[1], id)
if old ~= '' and value and string.sub(value, 1, #old) == old then
  redis.call('HSET', KEYS[1], id, old .. ' ' .. count)
  return {'', redis.call('XRANGE', KEYS[2], '(' .. ARGV[5], '+'), redis.call('XRANGE', KEYS[3], '(' .. ARGV[6], '+')}
end
redis.call('HSET', KEYS[1], id, new .. ' ' .. count)
local last = redis.call('XREVRANGE', KEYS[2], '+', '-', 'COUNT', 1)
return {last[1] and last[1][1] or '0-0'}`)

var errReply = errors.New("unexpected reply")

// renew renews the lease. It flushes the memory if the instance may have missed a change.
func (p *peers) renew(ctx context.Context) error {
	generation, proposed := p.cache.generation(), uuid.NewString()
	if generation == "" || generation != p.generation {
		p.registration = ""
	}
	p.generation = generation
	p.renewals++
	began := time.Since(p.since)
	reply, err := p.cache.breaker.Execute(func() (any, error) {
		return renewal.Run(ctx, p.cache.client, []string{registryKey, changesKey, repliesKey + p.id},
			p.id, p.registration, proposed, p.renewals, p.lastChange, p.lastReply).Slice()
	})
	if err != nil {
		return fmt.Errorf("renew lease: %w", err)
	}
	r, ok := parseRenewal(reply)
	if !ok {
		return fmt.Errorf("renew lease: %w", errReply)
	}
	if r.end != "" {
		p.register(proposed)
		p.lastChange, p.lastReply = r.end, "0-0"
	}
	if r.end != "" || !p.mayUseMemory() {
		p.cache.memory.flush()
	}
	p.receive(r.replies)
	if err := p.apply(ctx, r.changes); err != nil {
		return err
	}
	p.until.Store(int64(began + leaseFor))
	return nil
}

// register notes a new registration. Redis may have lost the registry, so other instances
// may have leases that are not in it; they have run out, or are in it, after leaseOver.
func (p *peers) register(registration string) {
	p.registration = registration
	p.mu.Lock()
	defer p.mu.Unlock()
	p.own, p.sureAt = registration, time.Now().Add(leaseOver)
}

// follow handles changes and replies as they arrive, until the next renewal is due.
func (p *peers) follow(ctx context.Context, until time.Time) error {
	for ctx.Err() == nil {
		left := time.Until(until).Truncate(time.Millisecond)
		if left <= 0 {
			return nil
		}
		waiting, cancel := context.WithTimeout(ctx, left+renewEvery)
		streams, err := p.cache.client.XRead(waiting, &redis.XReadArgs{
			Streams: []string{changesKey, repliesKey + p.id, p.lastChange, p.lastReply}, Block: left,
		}).Result()
		cancel()
		switch {
		case errors.Is(err, redis.Nil):
			return nil
		case err != nil:
			return fmt.Errorf("follow changes: %w", err)
		}
		for _, stream := range streams {
			if stream.Stream == changesKey {
				err = p.apply(ctx, stream.Messages)
			} else {
				p.receive(stream.Messages)
			}
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// apply drops the profiles that others have changed, and replies to those who wait.
func (p *peers) apply(ctx context.Context, changes []redis.XMessage) error {
	if len(changes) >= maxChanges {
		p.cache.memory.flush() // Redis keeps no more, so older ones may be missing.
	}
	var replies []announced
	for _, entry := range changes {
		p.lastChange = entry.ID
		a, ok := parseAnnounced(entry.Values)
		switch {
		case !ok: // Another release may announce something else.
			p.cache.memory.flush()
		case a.from == p.id: // It was dropped before it was announced.
		default:
			p.cache.memory.drop(a.stripe)
			if a.number != "" {
				replies = append(replies, a)
			}
		}
	}
	if len(replies) == 0 {
		return nil
	}
	_, err := p.cache.client.Pipelined(ctx, func(pipe redis.Pipeliner) error {
		for _, a := range replies {
			key := repliesKey + a.from
			pipe.XAdd(ctx, &redis.XAddArgs{Stream: key, MaxLen: maxChanges, Approx: true, Values: []string{"number", a.number, "by", p.id}})
			pipe.PExpire(ctx, key, repliesLifetime)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("reply to changes: %w", err) // The writers wait until the lease has run out.
	}
	return nil
}

// announced is a change that an instance has announced.
type announced struct {
	stripe       uint64 // of the user: Redis need not remember who was changed
	from, number string
}

func parseAnnounced(values map[string]any) (announced, bool) {
	var a announced
	var ok [3]bool
	var stripe string
	stripe, ok[0] = values["stripe"].(string)
	a.from, ok[1] = values["from"].(string)
	a.number, ok[2] = values["number"].(string)
	number, err := strconv.ParseUint(stripe, 10, 64)
	if a.stripe = number; err != nil || number >= stripes {
		return a, false
	}
	_, err = uuid.Parse(a.from) // It becomes a part of a key.
	return a, ok == [3]bool{true, true, true} && err == nil
}

// renewed is the reply to a renewal: the end of the changes if the registration is new, or
// else what is new.
type renewed struct {
	end              string
	changes, replies []redis.XMessage
}

func parseRenewal(got any) (r renewed, ok bool) {
	reply, _ := got.([]any)
	if len(reply) == 0 {
		return r, false
	}
	if r.end, ok = reply[0].(string); !ok || r.end != "" || len(reply) < 3 {
		return r, ok && r.end != ""
	}
	var fine [2]bool
	r.changes, fine[0] = parseEntries(reply[1])
	r.replies, fine[1] = parseEntries(reply[2])
	return r, fine[0] && fine[1]
}

// parseEntries parses entries of a stream as a script returns them.
func parseEntries(reply any) (entries []redis.XMessage, ok bool) {
	list, ok := reply.([]any)
	if !ok {
		return nil, false
	}
	for _, one := range list {
		pair, _ := one.([]any)
		if len(pair) != 2 {
			return nil, false
		}
		id, named := pair[0].(string)
		fields, listed := pair[1].([]any)
		if !named || !listed || len(fields)%2 != 0 {
			return nil, false
		}
		entry := redis.XMessage{ID: id, Values: map[string]any{}}
		for i := 0; i < len(fields); i += 2 {
			name, _ := fields[i].(string)
			entry.Values[name] = fields[i+1]
		}
		entries = append(entries, entry)
	}
	return entries, true
}
