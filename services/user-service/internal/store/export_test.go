package store

import "github.com/headgate/headgate/services/user-service/internal/profile"

// ParseEntry returns the profile in an entry of Redis, and whether there is one that may be
// served.
func ParseEntry(c *Cache, userID string, value []byte) (profile.Profile, bool) {
	p, _, result := c.parse(userID, value)
	return p, result == hit
}

// ParseRenewal reports whether a reply to a renewal is complete.
func ParseRenewal(reply any) bool {
	r, ok := parseRenewal(reply)
	for _, entry := range append(r.changes, r.replies...) {
		parseAnnounced(entry.Values)
	}
	return ok
}
