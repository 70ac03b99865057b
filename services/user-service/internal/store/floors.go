package store

import (
	"sync"
	"time"
)

// floors remembers, of users whose entry could not be invalidated, the oldest
// version that may be served. It holds no more than the changes that were made
// while Redis was away, each for as long as an entry can live.
type floors struct {
	now    func() time.Time
	mu     sync.Mutex
	byUser map[string]floor
	swept  time.Time
}

type floor struct {
	version int64
	until   time.Time
}

func newFloors(now func() time.Time) *floors {
	return &floors{now: now, byUser: map[string]floor{}, swept: now()}
}

func (f *floors) of(userID string) int64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	known, ok := f.byUser[userID]
	if !ok || f.now().After(known.until) {
		return 0
	}
	return known.version
}

func (f *floors) raise(userID string, version int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	now := f.now()
	if now.Sub(f.swept) > lifetime+jitter {
		for id, known := range f.byUser {
			if now.After(known.until) {
				delete(f.byUser, id)
			}
		}
		f.swept = now
	}
	f.byUser[userID] = floor{version: max(version, f.byUser[userID].version), until: now.Add(lifetime + jitter)}
}

// settle forgets a floor when Redis has learnt of that version or a newer one.
func (f *floors) settle(userID string, version int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if known, ok := f.byUser[userID]; ok && version >= known.version {
		delete(f.byUser, userID)
	}
}
