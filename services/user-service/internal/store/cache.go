package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
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
	floors  *floors
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
		floors: newFloors(now),
		lookups: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "headgate_profile_cache_lookups_total", Help: "Looks into the profile cache, by result: hit, miss, garbage, outdated or away.",
		}, []string{"result"}),
	}
	c.breaker = gobreaker.NewCircuitBreaker[any](gobreaker.Settings{
		Name: "profile-cache", Timeout: breather,
		ReadyToTrip: func(counts gobreaker.Counts) bool { return counts.ConsecutiveFailures >= 2 },
		// A Redis that complains, about one key for example, is there.
		IsSuccessful: answered,
		IsExcluded:   func(err error) bool { return errors.Is(err, context.Canceled) },
	})
	reg.MustRegister(c.lookups)
	return c
}

// answered reports whether Redis is there, be it with an error.
func answered(err error) bool {
	_, said := errors.AsType[redis.Error](err)
	return err == nil || said
}

// entry is what Redis holds. A tombstone has a version and no profile.
type entry struct {
	Version int64            `json:"version"`
	Profile *profile.Profile `json:"profile,omitempty"`
}

// Get implements profile.Cache. What it does not understand is a miss.
func (c *Cache) Get(ctx context.Context, userID string) (profile.Profile, bool) {
	p, result := c.get(ctx, userID)
	c.lookups.WithLabelValues(result).Inc()
	return p, result == "hit"
}

func (c *Cache) get(ctx context.Context, userID string) (p profile.Profile, result string) {
	value, err := c.breaker.Execute(func() (any, error) { return c.client.Get(ctx, keyPrefix+userID).Bytes() })
	switch {
	case errors.Is(err, redis.Nil):
		return profile.Profile{}, "miss"
	case err != nil && answered(err):
		return profile.Profile{}, "garbage"
	case err != nil:
		return profile.Profile{}, "away"
	}
	var e entry
	data, ok := value.([]byte)
	switch {
	case !ok || json.Unmarshal(data, &e) != nil || e.Version < 1:
		return profile.Profile{}, "garbage"
	case e.Profile == nil:
		return profile.Profile{}, "miss"
	case e.Profile.UserID != userID:
		return profile.Profile{}, "garbage"
	case e.Version < c.floors.of(userID):
		return profile.Profile{}, "outdated"
	}
	e.Profile.Version = e.Version
	return *e.Profile, "hit"
}

// known is the version of the entry in Redis, and whether it has a profile.
// What is no entry, be it of another type, counts as nothing.
const known = `
local function known()
  local ok, entry = pcall(cjson.decode, redis.pcall('GET', KEYS[1]))
  if ok and type(entry) == 'table' and type(entry.version) == 'number' then
    return entry.version, type(entry.profile) == 'table'
  end
  return 0, false
end`

// fill stores an entry unless a newer version is known: a reader that was slow
// must not bring the old one back.
var fill = redis.NewScript(known + `
if known() > tonumber(ARGV[1]) then
  return 0
end
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
return 1`)

// Put implements profile.Cache.
func (c *Cache) Put(ctx context.Context, p profile.Profile) {
	if p.Version < c.floors.of(p.UserID) {
		return
	}
	data, err := json.Marshal(entry{Version: p.Version, Profile: &p})
	if err != nil {
		return // A profile that cannot be encoded cannot be answered with, either.
	}
	ttl := lifetime - jitter + rand.N(2*jitter) //nolint:gosec // It spreads the load and keeps no secret.
	_, err = c.breaker.Execute(func() (any, error) {
		return fill.Run(ctx, c.client, []string{keyPrefix + p.UserID}, p.Version, data, ttl.Milliseconds()).Result()
	})
	if err == nil { // A cache that does not take an entry is a cache without it.
		c.floors.settle(p.UserID, p.Version)
	}
}

// bury replaces an entry by a tombstone of the highest version that is known,
// but leaves an entry that has the given version already. A Redis that is full
// takes no tombstone but still deletes.
var bury = redis.NewScript(known + `
local version = tonumber(ARGV[1])
local has, alive = known()
if version > 0 and alive and has >= version then
  return has
end
version = math.max(version, has)
local said = redis.pcall('SET', KEYS[1], cjson.encode({version = version}), 'PX', ARGV[2])
if said.err then
  redis.call('DEL', KEYS[1])
end
return version`)

// Invalidate implements profile.Cache. If Redis is away, this instance remembers
// the version until an older entry must have ended or was replaced after all.
func (c *Cache) Invalidate(ctx context.Context, userID string, version int64) error {
	_, err := c.breaker.Execute(func() (any, error) {
		return bury.Run(context.WithoutCancel(ctx), c.client, []string{keyPrefix + userID}, version, tombstone.Milliseconds()).Result()
	})
	if err != nil {
		c.floors.raise(userID, version)
		return fmt.Errorf("invalidate cached profile: %w: %w", profile.ErrCacheAway, err)
	}
	c.floors.settle(userID, version)
	return nil
}
