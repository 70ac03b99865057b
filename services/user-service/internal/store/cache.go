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

// Cache implements profile.Cache in Redis, under user:profile:v1:{userId}. While Redis is
// unavailable, or its generation is unknown, it behaves as an empty cache, and its circuit
// breaker keeps requests from waiting. It is safe for concurrent use.
type Cache struct {
	client      redis.UniversalClient
	generation  func() string
	breaker     *gobreaker.CircuitBreaker[any]
	lookups     *prometheus.CounterVec
	minVersions *minVersions
}

var _ profile.Cache = (*Cache)(nil)

const (
	keyPrefix = "user:profile:v1:"
	lifetime  = 600 * time.Second
	jitter    = 60 * time.Second // so that entries that were stored together do not expire together
	// tombstoneLifetime is longer than a reader can take from reading Postgres to Put.
	tombstoneLifetime = 30 * time.Second
	openTimeout       = time.Second // how long the circuit breaker stays open
)

// NewCache returns a cache on client, whose timeouts should be short. It uses only entries
// of the current generation; an empty generation is unknown.
func NewCache(client redis.UniversalClient, generation func() string, reg prometheus.Registerer, now func() time.Time) *Cache {
	c := &Cache{
		client:      client,
		generation:  generation,
		minVersions: newMinVersions(now),
		lookups: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "headgate_profile_cache_lookups_total", Help: "Lookups in the profile cache, by result: hit, miss, invalid, stale (an older version or another cache generation) or unavailable.",
		}, []string{"result"}),
	}
	c.breaker = gobreaker.NewCircuitBreaker[any](gobreaker.Settings{
		Name: "profile-cache", Timeout: openTimeout,
		ReadyToTrip: func(counts gobreaker.Counts) bool { return counts.ConsecutiveFailures >= 2 },
		// An error reply, for example about the type of one key, shows that Redis is available.
		IsSuccessful: answered,
		IsExcluded:   func(err error) bool { return errors.Is(err, context.Canceled) },
	})
	reg.MustRegister(c.lookups)
	return c
}

// answered says whether Redis replied, even if with an error.
func answered(err error) bool {
	_, replied := errors.AsType[redis.Error](err)
	return err == nil || replied
}

// entry is a cached profile, or a tombstone, which has a version and no profile. A profile
// of another generation counts as no entry. Those of the previous release have none: they
// are not served, but they keep older versions out.
type entry struct {
	Version    int64            `json:"version"`
	Generation string           `json:"generation,omitempty"`
	Profile    *profile.Profile `json:"profile,omitempty"`
}

// Generation implements profile.Cache.
func (c *Cache) Generation() string { return c.generation() }

// Get implements profile.Cache. An invalid entry is a miss.
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
		return profile.Profile{}, "invalid"
	case err != nil:
		return profile.Profile{}, "unavailable"
	}
	var e entry
	data, ok := value.([]byte)
	switch {
	case !ok || json.Unmarshal(data, &e) != nil || e.Version < 1:
		return profile.Profile{}, "invalid"
	case e.Profile == nil:
		return profile.Profile{}, "miss"
	// Redis replied, so a connection to another one has changed the generation already.
	case e.Generation == "" || e.Generation != c.generation():
		return profile.Profile{}, "stale"
	case e.Profile.UserID != userID:
		return profile.Profile{}, "invalid"
	case e.Version < c.minVersions.of(userID):
		return profile.Profile{}, "stale"
	}
	e.Profile.Version = e.Version
	return *e.Profile, "hit"
}

// known is a Lua function that returns the version of the entry in Redis, and whether it
// has a profile. An invalid entry, a value of another type, or a profile of another
// generation counts as no entry. A tombstone counts in every generation.
const known = `
local function known(generation)
  local ok, entry = pcall(cjson.decode, redis.pcall('GET', KEYS[1]))
  if not ok or type(entry) ~= 'table' or type(entry.version) ~= 'number' then
    return 0, false
  end
  local alive = type(entry.profile) == 'table'
  if alive and entry.generation and entry.generation ~= generation then
    return 0, false
  end
  return entry.version, alive
end`

// fill stores an entry unless Redis has a newer version: a slow reader must not restore
// an older profile.
var fill = redis.NewScript(known + `
if known(ARGV[4]) > tonumber(ARGV[1]) then
  return 0
end
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
return 1`)

// Put implements profile.Cache.
func (c *Cache) Put(ctx context.Context, p profile.Profile, generation string) {
	if generation == "" || generation != c.generation() || p.Version < c.minVersions.of(p.UserID) {
		return
	}
	data, err := json.Marshal(entry{Version: p.Version, Generation: generation, Profile: &p})
	if err != nil {
		return // A profile that cannot be encoded cannot be sent to a client, either.
	}
	ttl := lifetime - jitter + rand.N(2*jitter) //nolint:gosec // Jitter is not a secret.
	_, err = c.breaker.Execute(func() (any, error) {
		return fill.Run(ctx, c.client, []string{keyPrefix + p.UserID}, p.Version, data, ttl.Milliseconds(), generation).Result()
	})
	if err == nil { // If the entry was not stored, the next reader tries again.
		c.minVersions.stored(p.UserID, p.Version)
	}
}

// setTombstone replaces an entry by a tombstone with the highest version that is known.
// It leaves an entry that has at least the version to keep, unless that is 0. A full Redis
// accepts no tombstone, but it still deletes the entry.
var setTombstone = redis.NewScript(known + `
local version, keep = tonumber(ARGV[1]), tonumber(ARGV[2])
local has, alive = known(ARGV[4])
if keep > 0 and alive and has >= keep then
  return has
end
version = math.max(version, has)
local reply = redis.pcall('SET', KEYS[1], cjson.encode({version = version}), 'PX', ARGV[3])
if reply.err then
  redis.call('DEL', KEYS[1])
end
return version`)

// Invalidate implements profile.Cache. If Redis is unavailable, this instance remembers
// the version until every older entry has expired or has been replaced.
func (c *Cache) Invalidate(ctx context.Context, userID string, version int64) error {
	return c.invalidate(ctx, userID, version, version)
}

// Changed implements profile.Cache. It replaces an entry of any version: that of a database
// which was replaced a moment ago can have a higher version than the change.
func (c *Cache) Changed(ctx context.Context, p profile.Profile) error {
	return c.invalidate(ctx, p.UserID, p.Version, 0)
}

func (c *Cache) invalidate(ctx context.Context, userID string, version, keep int64) error {
	_, err := c.breaker.Execute(func() (any, error) {
		return setTombstone.Run(context.WithoutCancel(ctx), c.client, []string{keyPrefix + userID},
			version, keep, tombstoneLifetime.Milliseconds(), c.generation()).Result()
	})
	if err != nil {
		c.minVersions.raise(userID, version)
		return fmt.Errorf("invalidate cached profile: %w: %w", profile.ErrCacheUnavailable, err)
	}
	c.minVersions.stored(userID, version)
	return nil
}
