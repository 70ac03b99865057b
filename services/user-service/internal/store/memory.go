package store

import (
	"sync/atomic"
	"time"

	"github.com/cespare/xxhash/v2"
	"github.com/maypok86/otter/v2"

	"github.com/headgate/headgate/services/user-service/internal/profile"
)

// memory keeps the hottest profiles in the process, without a copy: nobody may change them. An
// entry is valid only while nothing was dropped since the read that it comes from began, so a
// slow reader restores nothing. It is safe for concurrent use.
type memory struct {
	entries *otter.Cache[string, remembered] // nil if nothing is kept
	flushes atomic.Uint64
	drops   [stripes]atomic.Uint64 // a drop drops all users of a stripe

	began     time.Time
	flushedAt atomic.Int64 // since then, in nanoseconds
	droppedAt [stripes]atomic.Int64
}

type remembered struct {
	stamp      stamp
	generation string
	until      time.Time
	profile    profile.Profile
}

// stamp is a moment in the order of drops.
type stamp struct {
	stripe         uint64
	drops, flushes uint64
}

const (
	stripes    = 1 << 13
	entryBytes = 512 // of an entry whose texts are empty
	// memoryLifetime is how often a hot entry is read from Redis nevertheless, where its end is
	// known. Changes do not wait for it.
	memoryLifetime = 10 * time.Second
)

// newMemory returns an empty memory of about that many bytes.
func newMemory(bytes uint32) *memory {
	m := &memory{began: time.Now()}
	if bytes == 0 {
		return m
	}
	m.entries = otter.Must(&otter.Options[string, remembered]{
		MaximumWeight: uint64(bytes),
		Weigher: func(_ string, e remembered) uint32 {
			p := e.profile
			texts := len(p.Email) + len(p.Name) + len(p.Bio) + len(p.Locale) + len(p.Timezone) + len(p.Avatar) + len(p.Preferences)
			return uint32(entryBytes + texts) //nolint:gosec // The texts are bounded.
		},
	})
	return m
}

// stripeOf returns the stripe of a user, the same in all instances.
func stripeOf(userID string) uint64 { return xxhash.Sum64String(userID) % stripes }

// stamp returns the present moment, for put.
func (m *memory) stamp(userID string) stamp {
	stripe := stripeOf(userID)
	return stamp{stripe, m.drops[stripe].Load(), m.flushes.Load()}
}

func (m *memory) current(s stamp) bool {
	return s.drops == m.drops[s.stripe].Load() && s.flushes == m.flushes.Load()
}

// get returns a profile of the generation, which must be known.
func (m *memory) get(userID, generation string) (profile.Profile, bool) {
	if m.entries == nil {
		return profile.Profile{}, false
	}
	e, ok := m.entries.GetIfPresent(userID)
	if !ok || generation == "" || e.generation != generation || !m.current(e.stamp) || time.Now().After(e.until) {
		return profile.Profile{}, false
	}
	return e.profile, true
}

// put stores a profile that was read after the moment of the stamp.
func (m *memory) put(s stamp, p profile.Profile, generation string) {
	if m.entries != nil && m.current(s) {
		m.entries.Set(p.UserID, remembered{s, generation, time.Now().Add(memoryLifetime), p})
	}
}

// drop makes the entries of a stripe invalid, and those of reads that have begun.
func (m *memory) drop(stripe uint64) {
	m.droppedAt[stripe].Store(int64(time.Since(m.began)))
	m.drops[stripe].Add(1)
}

// flush makes all entries invalid.
func (m *memory) flush() {
	m.flushedAt.Store(int64(time.Since(m.began)))
	m.flushes.Add(1)
}

// droppedSince reports whether a stripe was dropped since a time.
func (m *memory) droppedSince(stripe uint64, since time.Time) bool {
	last := max(m.flushedAt.Load(), m.droppedAt[stripe].Load())
	return last >= int64(since.Sub(m.began))
}
