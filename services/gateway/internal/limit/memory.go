package limit

import (
	"container/list"
	"slices"
	"sync"
	"time"
)

// Memory counts in this process. It is safe for concurrent use.
//
// A call takes the same short time however many keys there are: the keys of each
// window are kept in the order of their ends, so what to forget is in front.
type Memory struct {
	now func() time.Time

	mu     sync.Mutex
	counts map[id]*list.Element         // each of a *count
	byEnd  map[time.Duration]*list.List // the same for each window, those that end first in front
}

// count is what passed of one key. It ends when the newest mark leaves the window.
type count struct {
	name   id
	window time.Duration
	marks  []time.Time // when requests passed, oldest first; at least one
}

func (c *count) end() time.Time { return c.marks[len(c.marks)-1].Add(c.window) }

const (
	// maxKeys bounds the memory: beyond it the keys that are nearest to their end
	// make room, so that strangers with many addresses cannot exhaust it.
	maxKeys = 100_000
	// maxForgotten bounds what one call does for keys that have ended. It is more
	// than a call can add, so they grow fewer with each.
	maxForgotten = 8
)

// NewMemory returns an empty count.
func NewMemory(now func() time.Time) *Memory {
	return &Memory{now: now, counts: map[id]*list.Element{}, byEnd: map[time.Duration]*list.List{}}
}

// Take counts a request against every key that has room if all those that are
// enforced have, and against none otherwise, and returns what it found of each. More
// can pass only of a key that had to make room. A policy must have one window at all
// times.
func (m *Memory) Take(keys []Key) []Decision {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := m.now()
	m.forgetEnded(now)
	found := make([]Decision, len(keys))
	for i, key := range keys {
		found[i] = m.look(key, now)
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

// Look returns what Take would find of a key.
func (m *Memory) Look(key Key) Decision {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.look(key, m.now())
}

// Clear forgets what passed of a key, and reports whether there was anything.
func (m *Memory) Clear(key Key) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	e := m.counts[key.id()]
	if e != nil {
		m.forget(e)
	}
	return e != nil
}

func (m *Memory) look(key Key, now time.Time) Decision {
	rate := key.Policy.Rate
	marks := m.marks(key.id(), now.Add(-rate.Window))
	d := Decision{Allowed: len(marks) < rate.Requests, Policy: key.Policy, Remaining: max(0, rate.Requests-len(marks)-1), Reset: rate.Window}
	if len(marks) > 0 {
		d.Reset = marks[0].Add(rate.Window).Sub(now)
	}
	return d
}

// marks returns when requests of a key passed after since.
func (m *Memory) marks(name id, since time.Time) []time.Time {
	e := m.counts[name]
	if e == nil {
		return nil
	}
	c := countOf(e)
	left := slices.IndexFunc(c.marks, func(mark time.Time) bool { return mark.After(since) })
	if left < 0 {
		m.forget(e)
		return nil
	}
	c.marks = c.marks[left:]
	return c.marks
}

// add counts a request that passes now. Its key ends last of those of its window.
func (m *Memory) add(key Key, now time.Time) {
	name, window := key.id(), key.Policy.Rate.Window
	if e := m.counts[name]; e != nil {
		c := countOf(e)
		c.marks = append(c.marks, now)
		m.byEnd[c.window].MoveToBack(e)
		return
	}
	for len(m.counts) >= maxKeys {
		m.forget(m.first())
	}
	if m.byEnd[window] == nil {
		m.byEnd[window] = list.New()
	}
	m.counts[name] = m.byEnd[window].PushBack(&count{name: name, window: window, marks: []time.Time{now}})
}

func (m *Memory) forgetEnded(now time.Time) {
	for range maxForgotten {
		e := m.first()
		if e == nil || countOf(e).end().After(now) {
			return
		}
		m.forget(e)
	}
}

// first returns the key that ends first, or nil if there is none.
func (m *Memory) first() *list.Element {
	var first *list.Element
	for _, ends := range m.byEnd {
		if e := ends.Front(); e != nil && (first == nil || countOf(e).end().Before(countOf(first).end())) {
			first = e
		}
	}
	return first
}

func (m *Memory) forget(e *list.Element) {
	c := countOf(e)
	m.byEnd[c.window].Remove(e)
	delete(m.counts, c.name)
}

func countOf(e *list.Element) *count { return e.Value.(*count) }
