package ratelimit

import (
	"container/list"
	"slices"
	"sync"
	"time"
)

// Memory counts requests in this process. To a key's own count it adds what Redis last
// reported, so that a change from Redis to memory gives no client a second limit. It is
// safe for concurrent use.
//
// A call takes constant time however many keys there are: the keys of each window are
// ordered by when they expire, so those to forget are at the front.
type Memory struct {
	now func() time.Time

	mu     sync.Mutex
	counts map[ID]*list.Element         // each of a *count
	byEnd  map[time.Duration]*list.List // the same for each window, ordered by expiry
	room   int                          // the capacity of all marks
}

// count holds the requests of one key. It expires a window after its last change. Times are
// Unix nanoseconds.
type count struct {
	name    ID
	window  time.Duration
	changed int64
	marks   []int64 // when requests passed that were counted here, oldest first
	inRedis int     // requests in the window that Redis last reported
	asOf    int64   // when it did
}

func (c *count) end() int64 { return c.changed + int64(c.window) }

// known returns how many of the requests that Redis reported may still be in the window.
func (c *count) known(since time.Time) int {
	if c.asOf <= since.UnixNano() {
		return 0
	}
	return c.inRedis
}

const (
	// maxKeys and maxMarks bound the memory, at about 25 MB for the keys and 8 MB for the
	// marks. Beyond them the keys that expire next are dropped, so that clients with many
	// addresses cannot exhaust it.
	maxKeys  = 100_000
	maxMarks = 1_000_000
	// maxForgotten bounds how many expired keys one call removes. It is more than a call
	// can add, so their number shrinks with every call.
	maxForgotten = 8
)

// NewMemory returns a Memory without any counts.
func NewMemory(now func() time.Time) *Memory {
	return &Memory{now: now, counts: map[ID]*list.Element{}, byEnd: map[time.Duration]*list.List{}}
}

// Take counts a request against every key with room if all enforced keys have room, and
// against none otherwise. It returns a decision for each key. More than the limit can
// pass only for a key that was dropped to make room. A policy must always have the same
// window. What Redis reported counts until a window after the report.
func (m *Memory) Take(keys []Key) []Decision {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := m.now()
	m.forgetExpired(now)
	found := make([]Decision, len(keys))
	for i, key := range keys {
		found[i] = m.check(key, now)
	}
	if worst, enforced := decide(found); enforced && !worst.Allowed {
		return found
	}
	for i, key := range keys {
		if found[i].Allowed {
			m.add(key, now)
		}
	}
	return found
}

// Peek returns what Take would decide for a key, without counting a request.
func (m *Memory) Peek(key Key) Decision {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.check(key, m.now())
}

// Clear resets a key and reports whether any request was counted.
func (m *Memory) Clear(key Key) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	e := m.counts[key.ID()]
	if e == nil {
		return false
	}
	m.forget(e)
	return len(countOf(e).marks) > 0 || countOf(e).inRedis > 0
}

// Report notes how many requests of a key are in the window according to Redis. They count
// until a window after asOf.
func (m *Memory) Report(key Key, inRedis int, asOf time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := m.now()
	m.forgetExpired(now)
	c := m.touch(key, now)
	c.inRedis, c.asOf = inRedis, asOf.UnixNano()
}

// Counted returns how many requests in the window were counted here and not in Redis, and
// the time until the oldest of them leaves it.
func (m *Memory) Counted(key Key) (n int, reset time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := m.now()
	marks := m.marks(key.ID(), now.Add(-key.Policy.Rate.Window))
	if len(marks) == 0 {
		return 0, 0
	}
	return len(marks), time.Duration(marks[0] + int64(key.Policy.Rate.Window) - now.UnixNano())
}

func (m *Memory) check(key Key, now time.Time) Decision {
	rate := key.Policy.Rate
	since := now.Add(-rate.Window)
	marks := m.marks(key.ID(), since)
	used, oldest := len(marks), now.UnixNano()
	if len(marks) > 0 {
		oldest = marks[0]
	}
	if e := m.counts[key.ID()]; e != nil {
		if known := countOf(e).known(since); known > 0 {
			used, oldest = used+known, min(oldest, countOf(e).asOf)
		}
	}
	return Decision{
		Allowed: used < rate.Requests, Policy: key.Policy, Remaining: max(0, rate.Requests-used-1),
		Reset: time.Duration(oldest + int64(rate.Window) - now.UnixNano()),
	}
}

// marks returns the times after since at which requests of a key passed.
func (m *Memory) marks(name ID, since time.Time) []int64 {
	e := m.counts[name]
	if e == nil {
		return nil
	}
	c := countOf(e)
	if c.end() <= since.Add(c.window).UnixNano() {
		m.forget(e)
		return nil
	}
	left := slices.IndexFunc(c.marks, func(mark int64) bool { return mark > since.UnixNano() })
	if left < 0 {
		left = len(c.marks)
	}
	c.marks = slices.Delete(c.marks, 0, left)
	if len(c.marks) < cap(c.marks)/4 {
		m.resize(c, slices.Clone(c.marks)) // The room of a busy time would stay allocated.
	}
	return c.marks
}

// resize replaces the marks of a key.
func (m *Memory) resize(c *count, marks []int64) {
	m.room += cap(marks) - cap(c.marks)
	c.marks = marks
}

// add counts a request that passes now.
func (m *Memory) add(key Key, now time.Time) {
	c := m.touch(key, now)
	m.resize(c, append(c.marks, now.UnixNano()))
}

// touch returns the count of a key, which now expires last of those of its window. It makes
// room for one more request.
func (m *Memory) touch(key Key, now time.Time) *count {
	name, window := key.ID(), key.Policy.Rate.Window
	e := m.counts[name]
	for e == nil && len(m.counts) >= maxKeys || m.room >= maxMarks {
		first := m.first()
		if first == e {
			break // It alone is left, or it expires first and is the busiest.
		}
		m.forget(first)
	}
	if e == nil {
		if m.byEnd[window] == nil {
			m.byEnd[window] = list.New()
		}
		e = m.byEnd[window].PushBack(&count{name: name, window: window})
		m.counts[name] = e
	}
	c := countOf(e)
	c.changed = now.UnixNano()
	m.byEnd[c.window].MoveToBack(e)
	return c
}

func (m *Memory) forgetExpired(now time.Time) {
	for range maxForgotten {
		e := m.first()
		if e == nil || countOf(e).end() > now.UnixNano() {
			return
		}
		m.forget(e)
	}
}

// first returns the key that expires first, or nil if there is none.
func (m *Memory) first() *list.Element {
	var first *list.Element
	for _, ends := range m.byEnd {
		if e := ends.Front(); e != nil && (first == nil || countOf(e).end() < countOf(first).end()) {
			first = e
		}
	}
	return first
}

func (m *Memory) forget(e *list.Element) {
	c := countOf(e)
	m.byEnd[c.window].Remove(e)
	delete(m.counts, c.name)
	m.room -= cap(c.marks)
}

func countOf(e *list.Element) *count { return e.Value.(*count) }
