package store

import (
	"encoding/json"

	"github.com/redis/go-redis/v9"

	"github.com/headgate/headgate/services/user-service/internal/profile"
)

// entry is what Redis has of a user: a profile, that there is none (Missing), or only the
// version before which profiles are old: a tombstone. A profile of another generation counts
// as no entry.
type entry struct {
	Version    int64            `json:"version"`
	Generation string           `json:"generation,omitempty"`
	Missing    missing          `json:"missing,omitempty"`
	Lease      string           `json:"lease,omitempty"` // under which it was filled: no two entries are equal
	Profile    *profile.Profile `json:"profile,omitempty"`
	Account    int64            `json:"account,omitempty"` // the profile's AccountVersion
}

// missing says why a user has no profile. A release that does not know it sees a tombstone.
type missing string

const (
	absent missing = "absent" // a token can create the profile
	erased missing = "erased" // nothing can
)

func (m missing) err() error {
	if m == erased {
		return profile.ErrErased
	}
	return profile.ErrNotFound
}

// found is the result of a lookup: a label of the metric.
type found string

const (
	hit         found = "hit"
	miss        found = "miss"
	negative    found = "negative" // The user has no profile.
	invalid     found = "invalid"
	stale       found = "stale"
	unavailable found = "unavailable"
)

// parse returns the profile in a value, or why the user has none (negative).
func (c *Cache) parse(userID string, value []byte) (profile.Profile, missing, found) {
	var e entry
	oldest := c.minVersions.of(userID)
	switch {
	case json.Unmarshal(value, &e) != nil || e.Version < 1:
		return profile.Profile{}, "", invalid
	case e.Profile == nil && e.Missing == "":
		return profile.Profile{}, "", miss
	// Redis replied, so a connection to another one has changed the generation already.
	case e.Generation == "" || e.Generation != c.generation():
		return profile.Profile{}, "", stale
	case e.Version < oldest, e.Missing != "" && oldest > 0:
		return profile.Profile{}, "", stale
	case e.Profile == nil && (e.Missing == absent || e.Missing == erased):
		return profile.Profile{}, e.Missing, negative
	case e.Profile == nil || e.Profile.UserID != userID:
		return profile.Profile{}, "", invalid
	}
	e.Profile.Version, e.Profile.AccountVersion = e.Version, e.Account
	return *e.Profile, "", hit
}

const (
	keyPrefix   = "user:profile:v1:"
	leasePrefix = "user:profile:lease:"
)

// keysOf returns the keys of a user's entry and of the lease to fill it. The braces put both
// into one slot of a Cluster.
func keysOf(userID string) []string {
	key := keyPrefix + userID
	return []string{key, leasePrefix + "{" + key + "}"}
}

// known is a Lua function that returns the version of the entry in Redis, and whether it
// has a profile. An invalid entry, such as one with a version that Go cannot read, a value of
// another type, or a profile of another generation counts as no entry. A tombstone counts in
// every generation.
const known = `
local function known(generation)
  local ok, entry = pcall(cjson.decode, redis.pcall('GET', KEYS[1]))
  local version = ok and type(entry) == 'table' and entry.version
  if type(version) ~= 'number' or not (version >= 1 and version < 2^53 and version % 1 == 0) then
    return 0, false
  end
  local alive = type(entry.profile) == 'table'
  if alive and entry.generation and entry.generation ~= generation then
    return 0, false
  end
  return version, alive
end`

// lease returns the token of the lease to fill an entry. If nobody has the lease, the token
// is the proposed one. If the entry has changed since it was read, the new one is returned
// instead, because it may have been filled meanwhile.
var lease = redis.NewScript(`
local token = redis.call('GET', KEYS[2])
if token then
  return {token}
end
local value = redis.pcall('GET', KEYS[1])
if type(value) == 'string' and value ~= ARGV[3] then
  return {'', value}
end
redis.call('SET', KEYS[2], ARGV[1], 'PX', ARGV[2])
return {ARGV[1]}`)

// fill ends a lease and stores an entry, unless the lease has ended: an invalidation ends it,
// so a slow reader restores nothing. An invalidation by an earlier release leaves it, so the
// versions count as well. An entry without a profile gets the version that is known.
var fill = redis.NewScript(known + `
if redis.call('GET', KEYS[2]) ~= ARGV[5] then
  return 0
end
redis.call('DEL', KEYS[2])
local version, value = known(ARGV[4]), ARGV[2]
if ARGV[1] == '0' then
  value = cjson.encode({version = math.max(version, 1), generation = ARGV[4], missing = value, lease = ARGV[5]})
elseif version > tonumber(ARGV[1]) then
  return 0
end
redis.call('SET', KEYS[1], value, 'PX', ARGV[3])
return 1`)

// giveUp ends a lease.
var giveUp = redis.NewScript(`
if redis.call('GET', KEYS[1]) == ARGV[1] then
  return redis.call('DEL', KEYS[1])
end
return 0`)

// setTombstone replaces an entry by a tombstone with the highest version that is known, and
// ends the lease to fill it. It leaves an entry that has at least the version to keep, unless
// that is 0. A full Redis accepts no tombstone, but it still deletes the entry.
var setTombstone = redis.NewScript(known + `
redis.call('DEL', KEYS[2])
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
