package ratelimit

import (
	"container/list"
	"slices"
	"sync"
	"time"
)

// Memory counts requests in this process. It is safe for concurrent use.
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

// count holds the requests of one key. It expires when the newest leaves the window.
type count struct {
	name   ID
	window time.Duration
	marks  []int64 // when requests passed, in Unix nanoseconds, oldest first; at least one
}

func (c *count) end() int64 { return c.marks[len(c.marks)-1] + int64(c.window) }

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
// window.
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
	if e != nil {
		m.forget(e)
	}
	return e != nil
}

func (m *Memory) check(key Key, now time.Time) Decision {
	rate := key.Policy.Rate
	marks := m.marks(key.ID(), now.Add(-rate.Window))
	d := Decision{Allowed: len(marks) < rate.Requests, Policy: key.Policy, Remaining: max(0, rate.Requests-len(marks)-1), Reset: rate.Window}
	if len(marks) > 0 {
		d.Reset = time.Duration(marks[0] + int64(rate.Window) - now.UnixNano())
	}
	return d
}

// marks returns the times after since at which requests of a key passed.
func (m *Memory) marks(name ID, since time.Time) []int64 {
	e := m.counts[name]
	if e == nil {
		return nil
	}
	c := countOf(e)
	left := slices.IndexFunc(c.marks, func(mark int64) bool { return mark > since.UnixNano() })
	if left < 0 {
		m.forget(e)
		return nil
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

// add counts a request that passes now. Its key now expires last of those of its window.
func (m *Memory) add(key Key, now time.Time) {
	name, window := key.ID(), key.Policy.Rate.Window
	e := m.counts[name]
	for e == nil && len(m.counts) >= maxKeys || m.room >= maxMarks {
		first := m.first()
		if first == e {
			break // It alone is left, or it expires first and is the busiest.
		}
		m.forget(first)
	}
	if e != nil {
		c := countOf(e)
		m.resize(c, append(c.marks, now.UnixNano()))
		m.byEnd[c.window].MoveToBack(e)
		return
	}
	if m.byEnd[window] == nil {
		m.byEnd[window] = list.New()
	}
	c := &count{name: name, window: window}
	m.resize(c, []int64{now.UnixNano()})
	m.counts[name] = m.byEnd[window].PushBack(c)
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
