package limit

import (
	"sync"
	"time"
)

// Memory counts in this process. It is safe for concurrent use.
type Memory struct {
	now func() time.Time

	mu    sync.Mutex
	marks map[string][]time.Time // when requests passed, oldest first
	swept time.Time
}

// maxKeys bounds the memory: beyond it the keys that are nearest to their end
// make room, so that strangers with many addresses cannot exhaust it.
const (
	maxKeys    = 100_000
	sweepEvery = time.Minute
)

// NewMemory returns an empty count.
func NewMemory(now func() time.Time) *Memory {
	return &Memory{now: now, marks: map[string][]time.Time{}, swept: now()}
}

// Take counts a request against every key if all of them let it pass, and
// against none otherwise.
func (m *Memory) Take(keys []Key) Decision {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := m.now()
	m.sweep(now)

	var worst Decision
	for i, key := range keys {
		name := key.name("")
		rate := key.Policy.Rate
		marks := recent(m.marks[name], now.Add(-rate.Window))
		m.marks[name] = marks
		d := Decision{Allowed: len(marks) < rate.Requests, Policy: key.Policy, Remaining: max(0, rate.Requests-len(marks)-1), Reset: rate.Window}
		if len(marks) > 0 {
			d.Reset = marks[0].Add(rate.Window).Sub(now)
		}
		if i == 0 || d.tighter(worst) {
			worst = d
		}
	}
	for _, key := range keys {
		name := key.name("")
		switch {
		case worst.Allowed:
			m.marks[name] = append(m.marks[name], now)
		case len(m.marks[name]) == 0:
			delete(m.marks, name)
		}
	}
	return worst
}

// recent returns the marks after since, in the same memory.
func recent(marks []time.Time, since time.Time) []time.Time {
	for i, mark := range marks {
		if mark.After(since) {
			return append(marks[:0], marks[i:]...)
		}
	}
	return marks[:0]
}

// sweep forgets what has left every window.
func (m *Memory) sweep(now time.Time) {
	if now.Sub(m.swept) < sweepEvery && len(m.marks) < maxKeys {
		return
	}
	m.swept = now
	for name, marks := range m.marks {
		if len(marks) == 0 || now.Sub(marks[len(marks)-1]) > maxWindow {
			delete(m.marks, name)
		}
	}
	for name := range m.marks {
		if len(m.marks) < maxKeys {
			return
		}
		delete(m.marks, name)
	}
}
