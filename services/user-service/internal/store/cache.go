package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"
	"github.com/sony/gobreaker/v2"

	"github.com/headgate/headgate/services/user-service/internal/profile"
)

// Cache implements profile.Cache in Redis, under user:profile:v1:{userId}. When
// Redis is away it is an empty cache, at no cost worth mentioning.
type Cache struct {
	client  redis.UniversalClient
	breaker *gobreaker.CircuitBreaker[any]
	lookups *prometheus.CounterVec
	now     func() time.Time

	mu sync.Mutex
	// distrusted are users whose entry could not be invalidated, until when it
	// may still be in Redis. The event of the change will invalidate it.
	distrusted map[string]time.Time
}

var _ profile.Cache = (*Cache)(nil)

const (
	keyPrefix = "user:profile:v1:"
	lifetime  = 600 * time.Second
	jitter    = 60 * time.Second // so that entries made together do not end together
	// tombstone is longer than a reader can take from its look at Postgres to Put.
	tombstone = 30 * time.Second
	breather  = time.Second
)

// NewCache returns a cache on client, whose patience should be short.
func NewCache(client redis.UniversalClient, reg prometheus.Registerer, now func() time.Time) *Cache {
	c := &Cache{
		client: client,
		now:    now,
		lookups: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "headgate_profile_cache_lookups_total", Help: "Looks into the profile cache, by result: hit, miss or away.",
		}, []string{"result"}),
		distrusted: map[string]time.Time{},
	}
	c.breaker = gobreaker.NewCircuitBreaker[any](gobreaker.Settings{
		Name: "profile-cache", Timeout: breather,
		ReadyToTrip: func(counts gobreaker.Counts) bool { return counts.ConsecutiveFailures >= 2 },
		IsSuccessful: func(err error) bool {
			return err == nil || errors.Is(err, redis.Nil) || errors.Is(err, context.Canceled)
		},
	})
	reg.MustRegister(c.lookups)
	return c
}

// entry is what Redis holds. A tombstone has a version and no profile.
type entry struct {
	Version int64            `json:"version"`
	Profile *profile.Profile `json:"profile,omitempty"`
}

// Get implements profile.Cache. What it does not understand is a miss.
func (c *Cache) Get(ctx context.Context, userID string) (profile.Profile, bool) {
	if c.isDistrusted(userID) {
		c.lookups.WithLabelValues("away").Inc()
		return profile.Profile{}, false
	}
	value, err := c.breaker.Execute(func() (any, error) { return c.client.Get(ctx, keyPrefix+userID).Bytes() })
	if err != nil {
		result := "away"
		if errors.Is(err, redis.Nil) {
			result = "miss"
		}
		c.lookups.WithLabelValues(result).Inc()
		return profile.Profile{}, false
	}
	var e entry
	data, ok := value.([]byte)
	if !ok || json.Unmarshal(data, &e) != nil || e.Profile == nil || e.Profile.UserID != userID {
		c.lookups.WithLabelValues("miss").Inc()
		return profile.Profile{}, false
	}
	c.lookups.WithLabelValues("hit").Inc()
	e.Profile.Version = e.Version
	return *e.Profile, true
}

// fill stores an entry unless a newer version is known: a reader that was slow
// must not bring the old one back.
var fill = redis.NewScript(`
local known = redis.call('GET', KEYS[1])
if known then
  local ok, entry = pcall(cjson.decode, known)
  if ok and type(entry) == 'table' and type(entry.version) == 'number' and entry.version > tonumber(ARGV[1]) then
    return 0
  end
end
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
return 1`)

// Put implements profile.Cache.
func (c *Cache) Put(ctx context.Context, p profile.Profile) {
	if c.isDistrusted(p.UserID) {
		return
	}
	data, err := json.Marshal(entry{Version: p.Version, Profile: &p})
	if err != nil {
		return // A profile that cannot be encoded cannot be answered with, either.
	}
	ttl := lifetime - jitter + rand.N(2*jitter)
	// A cache that does not take an entry is a cache without it.
	_, _ = c.breaker.Execute(func() (any, error) {
		return fill.Run(ctx, c.client, []string{keyPrefix + p.UserID}, p.Version, data, ttl.Milliseconds()).Result()
	})
}

// bury replaces an entry by a tombstone of the highest version that is known.
var bury = redis.NewScript(`
local version = tonumber(ARGV[1])
local known = redis.call('GET', KEYS[1])
if known then
  local ok, entry = pcall(cjson.decode, known)
  if ok and type(entry) == 'table' and type(entry.version) == 'number' and entry.version > version then
    version = entry.version
  end
end
redis.call('SET', KEYS[1], cjson.encode({version = version}), 'PX', ARGV[2])
return version`)

// Invalidate implements profile.Cache. If Redis is away, this instance does not
// look at the entry again until it must have ended or was invalidated after all.
func (c *Cache) Invalidate(ctx context.Context, userID string, version int64) error {
	c.distrust(userID)
	_, err := c.breaker.Execute(func() (any, error) {
		return bury.Run(context.WithoutCancel(ctx), c.client, []string{keyPrefix + userID}, version, tombstone.Milliseconds()).Result()
	})
	if err != nil {
		return fmt.Errorf("invalidate cached profile: %w", err)
	}
	c.trust(userID)
	return nil
}

func (c *Cache) distrust(userID string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.now()
	c.distrusted[userID] = now.Add(lifetime + jitter)
	for id, until := range c.distrusted {
		if now.After(until) {
			delete(c.distrusted, id)
		}
	}
}

func (c *Cache) trust(userID string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.distrusted, userID)
}

func (c *Cache) isDistrusted(userID string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	until, ok := c.distrusted[userID]
	return ok && !c.now().After(until)
}
