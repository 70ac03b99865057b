package store

import (
	"sync"
	"time"
)

// minVersions remembers the oldest version that may be served of each profile whose cache
// entry could not be invalidated. It grows only while Redis is unavailable, and each
// element is kept for as long as a cache entry can live. It is safe for concurrent use.
type minVersions struct {
	now      func() time.Time
	mu       sync.Mutex
	byUser   map[string]minVersion
	prunedAt time.Time
}

type minVersion struct {
	version int64
	until   time.Time
}

func newMinVersions(now func() time.Time) *minVersions {
	return &minVersions{now: now, byUser: map[string]minVersion{}, prunedAt: now()}
}

// of returns the oldest version of a profile that may be served, or 0 if any may.
func (m *minVersions) of(userID string) int64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	known, ok := m.byUser[userID]
	if !ok || m.now().After(known.until) {
		return 0
	}
	return known.version
}

// raise keeps versions before version from being served.
func (m *minVersions) raise(userID string, version int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := m.now()
	if now.Sub(m.prunedAt) > lifetime+jitter {
		for id, known := range m.byUser {
			if now.After(known.until) {
				delete(m.byUser, id)
			}
		}
		m.prunedAt = now
	}
	m.byUser[userID] = minVersion{version: max(version, m.byUser[userID].version), until: now.Add(lifetime + jitter)}
}

// stored removes the limit of a profile if Redis now has that version or a newer one.
func (m *minVersions) stored(userID string, version int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if known, ok := m.byUser[userID]; ok && version >= known.version {
		delete(m.byUser, userID)
	}
}
