package store

import (
	"context"
	crand "crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"
	"github.com/sony/gobreaker/v2"
	"golang.org/x/sync/semaphore"
	"golang.org/x/sync/singleflight"

	"github.com/headgate/headgate/services/user-service/internal/profile"
)

// Cache implements profile.Cache: in the memory of this instance, and behind that in Redis,
// under user:profile:v1:{userId}. While Redis is unavailable, or its generation is unknown, it
// behaves as an empty cache, and its circuit breaker keeps requests from waiting. Run must be
// running. It is safe for concurrent use.
type Cache struct {
	client      redis.UniversalClient
	generation  func() string
	breaker     *gobreaker.CircuitBreaker[any]
	minVersions *minVersions
	memory      *memory
	peers       *peers

	instance string // begins the tokens of its leases
	flights  singleflight.Group
	slots    *semaphore.Weighted // for reads of the database
	renewals chan struct{}       // has a value for each entry that is renewed in the background
	work     sync.WaitGroup      // what goes on after its requests have ended

	lookups *prometheus.CounterVec
	reads   prometheus.Counter
}

var _ profile.Cache = (*Cache)(nil)

const (
	lifetime = 600 * time.Second
	jitter   = 60 * time.Second // so that entries that were stored together do not expire together
	// Near its end an entry is renewed while it is served.
	renewBefore      = 60 * time.Second
	negativeLifetime = 30 * time.Second
	negativeJitter   = 5 * time.Second // subtracted
	// tombstoneLifetime is longer than a reader can take from reading Postgres to filling.
	tombstoneLifetime = 30 * time.Second
	openTimeout       = time.Second // how long the circuit breaker stays open
)

// CacheConfig has what a Cache needs.
type CacheConfig struct {
	Client     redis.UniversalClient // its timeouts should be short
	Generation func() string         // The cache uses only entries of the current one; an empty one is unknown.
	Reads      int                   // how many profiles are read from the database at the same time, at most
	Memory     uint32                // bytes for profiles in the memory of this instance; 0 keeps none
	Log        *slog.Logger
	Metrics    prometheus.Registerer
	Now        func() time.Time
}

// NewCache returns an empty cache.
func NewCache(cfg CacheConfig) *Cache {
	c := &Cache{
		client:      cfg.Client,
		generation:  cfg.Generation,
		minVersions: newMinVersions(cfg.Now),
		memory:      newMemory(cfg.Memory),
		instance:    crand.Text()[:8],
		slots:       semaphore.NewWeighted(int64(max(1, cfg.Reads))),
		renewals:    make(chan struct{}, maxRenewals),
		lookups: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "headgate_profile_cache_lookups_total", Help: "Lookups in the profile cache, by layer (memory or redis) and result: hit, negative (no such profile), miss, invalid, stale (an older version or another cache generation) or unavailable.",
		}, []string{"layer", "result"}),
		reads: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "headgate_profile_cache_loads_total", Help: "Profiles that the cache has read from the database.",
		}),
	}
	c.peers = newPeers(c, cfg.Log)
	c.breaker = gobreaker.NewCircuitBreaker[any](gobreaker.Settings{
		Name: "profile-cache", Timeout: openTimeout,
		ReadyToTrip: func(counts gobreaker.Counts) bool { return counts.ConsecutiveFailures >= 2 },
		// An error reply, for example about the type of one key, shows that Redis is available.
		IsSuccessful: answered,
		IsExcluded:   func(err error) bool { return errors.Is(err, context.Canceled) },
	})
	cfg.Metrics.MustRegister(c.lookups, c.reads, prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "headgate_profile_cache_memory_usable", Help: "1 while this instance may use the profiles in its memory: while it learns of every change in time.",
	}, func() float64 {
		if c.peers.mayUseMemory() {
			return 1
		}
		return 0
	}))
	return c
}

// Run follows the changes that other instances announce, until ctx ends. Then it waits for
// reads that go on without their requests.
func (c *Cache) Run(ctx context.Context) error {
	c.peers.run(ctx)
	c.work.Wait()
	return nil
}

// answered says whether Redis replied, even if with an error.
func answered(err error) bool {
	_, replied := errors.AsType[redis.Error](err)
	return err == nil || replied
}

// Read implements profile.Cache.
func (c *Cache) Read(ctx context.Context, userID string, load profile.Load) (p profile.Profile, cached bool, err error) {
	r := read{userID: userID, load: load, generation: c.generation(), stamp: c.memory.stamp(userID)}
	if c.peers.mayUseMemory() {
		p, ok := c.memory.get(userID, r.generation)
		if ok && p.Version >= c.minVersions.of(userID) {
			c.lookups.WithLabelValues("memory", string(hit)).Inc()
			return p, true, nil
		}
		c.lookups.WithLabelValues("memory", string(miss)).Inc()
	}
	p, why, result, ends := c.get(ctx, &r)
	c.lookups.WithLabelValues("redis", string(result)).Inc()
	switch result {
	case hit:
		c.memory.put(r.stamp, p, r.generation)
		if ends < renewBefore {
			c.renew(ctx, r)
		}
		return p, true, nil
	case negative:
		return profile.Profile{}, true, why.err()
	case unavailable:
		p, err = c.fromDatabase(ctx, r)
	default:
		p, err = c.share(ctx, r)
	}
	return p, false, err
}

// get reads the entry in Redis into r.seen, and returns what it says and how long it lives.
func (c *Cache) get(ctx context.Context, r *read) (p profile.Profile, why missing, result found, ends time.Duration) {
	type reply struct {
		value *redis.StringCmd
		ttl   *redis.DurationCmd
	}
	got, err := c.breaker.Execute(func() (any, error) {
		var got reply
		_, err := c.client.Pipelined(ctx, func(pipe redis.Pipeliner) error {
			got = reply{pipe.Get(ctx, keyPrefix+r.userID), pipe.PTTL(ctx, keyPrefix+r.userID)}
			return nil
		})
		return got, err
	})
	switch {
	case errors.Is(err, redis.Nil):
		return p, "", miss, 0
	case err != nil && answered(err):
		return p, "", invalid, 0
	case err != nil:
		return p, "", unavailable, 0
	}
	both, ok := got.(reply)
	if !ok {
		return p, "", invalid, 0
	}
	r.seen = both.value.Val()
	p, why, result = c.parse(r.userID, []byte(r.seen))
	return p, why, result, both.ttl.Val()
}

// put stores a profile that was read under a lease, and reports whether it did.
func (c *Cache) put(ctx context.Context, r read, token string, p profile.Profile) bool {
	if r.generation == "" || r.generation != c.generation() || p.Version < c.minVersions.of(r.userID) {
		return false
	}
	data, err := json.Marshal(entry{Version: p.Version, Generation: r.generation, Lease: token, Profile: &p, Account: p.AccountVersion})
	if err != nil {
		return false // A profile that cannot be encoded cannot be sent to a client, either.
	}
	ttl := lifetime - jitter + rand.N(2*jitter) //nolint:gosec // Jitter is not a secret.
	if !c.fill(ctx, r, token, filling{p.Version, string(data), ttl}) {
		return false // The next reader tries again.
	}
	c.minVersions.stored(r.userID, p.Version)
	return true
}

// putMissing stores that a user has no profile.
func (c *Cache) putMissing(ctx context.Context, r read, token string, why missing) {
	if r.generation != "" && r.generation == c.generation() {
		ttl := negativeLifetime - rand.N(negativeJitter) //nolint:gosec // Jitter is not a secret.
		c.fill(ctx, r, token, filling{value: string(why), ttl: ttl})
	}
}

// filling is what to fill an entry with. The value is the entry, or why there is no profile if
// the version is 0.
type filling struct {
	version int64
	value   string
	ttl     time.Duration
}

func (c *Cache) fill(ctx context.Context, r read, token string, f filling) bool {
	stored, err := c.breaker.Execute(func() (any, error) {
		return fill.Run(ctx, c.client, keysOf(r.userID), f.version, f.value, f.ttl.Milliseconds(), r.generation, token).Int()
	})
	return err == nil && stored == 1
}

// Invalidate implements profile.Cache. If Redis is unavailable, this instance remembers
// the version until every older entry has expired or has been replaced.
func (c *Cache) Invalidate(ctx context.Context, userID string, version int64) error {
	_, err := c.invalidate(ctx, change{userID, version, version}, "")
	return err
}

// Changed implements profile.Cache. It replaces an entry of any version: that of a database
// which was replaced a moment ago can have a higher version than the change.
func (c *Cache) Changed(ctx context.Context, p profile.Profile) error {
	return c.settle(ctx, change{userID: p.UserID, version: p.Version})
}

// Drop implements profile.Cache.
func (c *Cache) Drop(ctx context.Context, userID string) error {
	return c.settle(ctx, change{userID: userID})
}

// change is a change of a profile. Entries that have at least the version to keep stay,
// unless that is 0.
type change struct {
	userID        string
	version, keep int64
}

// ChangedLately implements profile.Cache. All instances learn of a change before it is answered.
func (c *Cache) ChangedLately(userID string) bool {
	return !c.peers.mayUseMemory() || c.memory.droppedSince(stripeOf(userID), time.Now().Add(-maxLag))
}

const settleRetry = 50 * time.Millisecond

// settle invalidates, and returns when no instance uses an older profile in its memory. While
// Redis does not answer, it retries until they cannot have one anyway, at most for the time of
// a lease.
func (c *Cache) settle(ctx context.Context, ch change) error {
	deadline := time.Now().Add(leaseOver)
	for {
		announced := c.peers.expect()
		others, err := c.invalidate(ctx, ch, announced.number)
		if err == nil {
			return c.peers.await(ctx, announced, others)
		}
		c.peers.forget(announced)
		if now := time.Now(); now.After(deadline) || now.After(c.peers.aloneAt()) {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(settleRetry):
		}
	}
}

// invalidate replaces the entry in Redis, drops the one in memory and announces both to the
// other instances, which it returns. They reply to a number, unless it is empty.
func (c *Cache) invalidate(ctx context.Context, ch change, number string) (others registry, err error) {
	ctx = context.WithoutCancel(ctx)
	_, err = c.breaker.Execute(func() (any, error) {
		return setTombstone.Run(ctx, c.client, keysOf(ch.userID),
			ch.version, ch.keep, tombstoneLifetime.Milliseconds(), c.generation()).Result()
	})
	if err != nil {
		c.minVersions.raise(ch.userID, ch.version)
	} else {
		c.minVersions.stored(ch.userID, ch.version)
	}
	// Only now, because until now a reader could fetch the old entry from Redis again.
	c.memory.drop(stripeOf(ch.userID))
	if err != nil {
		return nil, fmt.Errorf("invalidate cached profile: %w: %w", profile.ErrCacheUnavailable, err)
	}
	got, err := c.breaker.Execute(func() (any, error) { return c.peers.announce(ctx, ch.userID, number) })
	if err != nil {
		return nil, fmt.Errorf("announce change of a profile: %w: %w", profile.ErrCacheUnavailable, err)
	}
	others, _ = got.(registry)
	return others, nil
}
