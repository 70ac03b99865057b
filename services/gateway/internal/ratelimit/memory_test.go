package ratelimit

import (
	"context"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"
)

// clock is a time that changes only when a test sets it.
type clock struct{ at time.Time }

func (c *clock) now() time.Time { return c.at }

func newMemory() (*Memory, *clock) {
	c := &clock{at: time.Date(2026, 1, 31, 12, 0, 0, 0, time.UTC)}
	return NewMemory(c.now), c
}

func key(policy string, requests int, window time.Duration, subject any) []Key {
	return []Key{{Policy: Policy{Name: policy, Rate: Rate{Requests: requests, Window: window}}, Subject: fmt.Sprint(subject)}}
}

func pass(m *Memory, keys []Key) Decision {
	d, _ := decide(m.Take(keys))
	return d
}

func TestMemoryNeverLetsMorePass(t *testing.T) {
	t.Parallel()
	m, c := newMemory()
	ann := key("login", 3, time.Minute, "ann")
	for i, tc := range []struct {
		later time.Duration
		want  Decision
	}{
		{0, Decision{Allowed: true, Remaining: 2, Reset: time.Minute}},
		{20 * time.Second, Decision{Allowed: true, Remaining: 1, Reset: 40 * time.Second}},
		{20 * time.Second, Decision{Allowed: true, Remaining: 0, Reset: 20 * time.Second}},
		{19 * time.Second, Decision{Allowed: false, Remaining: 0, Reset: time.Second}},
		{time.Second, Decision{Allowed: true, Remaining: 0, Reset: 20 * time.Second}},
		{19 * time.Second, Decision{Allowed: false, Remaining: 0, Reset: time.Second}},
		{2 * time.Minute, Decision{Allowed: true, Remaining: 2, Reset: time.Minute}},
	} {
		c.at = c.at.Add(tc.later)
		tc.want.Policy = ann[0].Policy
		if got := pass(m, ann); got != tc.want {
			t.Errorf("Take %d = %+v, want %+v", i+1, got, tc.want)
		}
	}
}

// TestMemoryCountsAllOrNone: a request that one key rejects counts against none.
func TestMemoryCountsAllOrNone(t *testing.T) {
	t.Parallel()
	m, _ := newMemory()
	both := append(key("login", 1, time.Minute, "ann"), key("login-ip", 3, time.Minute, "192.0.2.1")...)
	for i, want := range []bool{true, false, false, false} {
		if d := pass(m, both); d.Allowed != want {
			t.Errorf("Take %d = %+v", i+1, d)
		}
	}
	if d := pass(m, both[1:]); !d.Allowed || d.Remaining != 1 {
		t.Errorf("the address' Take = %+v, want 1 remaining", d)
	}
}

// TestMemoryForgetsByWindow: a key is kept as long as its own window, and a call removes
// a bounded number of expired keys.
func TestMemoryForgetsByWindow(t *testing.T) {
	t.Parallel()
	m, c := newMemory()
	const many = 10_000
	for i := range many {
		pass(m, key("general", 5, time.Minute, i))
	}
	for i := range 10 {
		pass(m, key("login", 5, 15*time.Minute, i))
	}
	if got := len(m.counts); got != many+10 {
		t.Fatalf("%d keys, want %d", got, many+10)
	}
	c.at = c.at.Add(time.Minute)
	least := many
	for i := range many {
		before := len(m.counts)
		pass(m, key("general", 5, time.Minute, "one"))
		if gone := before - len(m.counts); gone > maxForgotten {
			t.Fatalf("call %d forgot %d keys, want at most %d", i+1, gone, maxForgotten)
		}
		if least = len(m.counts); least == 11 {
			break
		}
	}
	if least != 11 {
		t.Errorf("%d keys are left, want the 10 of the long window and the new one", least)
	}
	if d := pass(m, key("login", 5, 15*time.Minute, 0)); d.Remaining != 3 {
		t.Errorf("a key of the long window was forgotten: %+v", d)
	}
}

// TestMemoryIsBounded: a flood of new keys drops those that expire next, one for one, and
// spares the longer windows.
func TestMemoryIsBounded(t *testing.T) {
	t.Parallel()
	m, _ := newMemory()
	for i := range 10 {
		pass(m, key("login", 1, 15*time.Minute, i))
	}
	for i := range maxKeys {
		pass(m, key("general", 1, time.Minute, i))
		if len(m.counts) > maxKeys {
			t.Fatalf("%d keys, want at most %d", len(m.counts), maxKeys)
		}
	}
	if got := len(m.counts); got != maxKeys {
		t.Errorf("%d keys, want %d: one makes room for one", got, maxKeys)
	}
	for i := range 10 {
		if d := pass(m, key("login", 1, 15*time.Minute, i)); d.Allowed {
			t.Errorf("the flood made room for login %d", i)
		}
	}
	if d := pass(m, key("general", 1, time.Minute, maxKeys-1)); d.Allowed {
		t.Errorf("the newest key made room")
	}
	if d := pass(m, key("general", 1, time.Minute, 0)); !d.Allowed {
		t.Errorf("the oldest key did not make room")
	}
	ordered := 0
	for _, ends := range m.byEnd {
		ordered += ends.Len()
	}
	if ordered != len(m.counts) {
		t.Errorf("%d keys are ordered by expiry, want %d", ordered, len(m.counts))
	}
}

// TestMemoryKeepsWhatIsUsed: a key that counts again expires later than keys that were
// added after it.
func TestMemoryKeepsWhatIsUsed(t *testing.T) {
	t.Parallel()
	m, c := newMemory()
	pass(m, key("general", 2, time.Minute, "ann"))
	for i := range maxKeys - 1 {
		pass(m, key("general", 2, time.Minute, i))
	}
	c.at = c.at.Add(time.Second)
	pass(m, key("general", 2, time.Minute, "ann"))
	for i := range 100 {
		pass(m, key("general", 2, time.Minute, fmt.Sprint("new ", i)))
	}
	if d := pass(m, key("general", 2, time.Minute, "ann")); d.Allowed {
		t.Errorf("Take = %+v: the key that was used last made room", d)
	}
}

// heap returns how many bytes are in use.
func heap() uint64 {
	runtime.GC()
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	return stats.HeapAlloc
}

// bounded runs fill and checks what it leaves in memory. It must not run in parallel.
func bounded(t *testing.T, limit uint64, fill func() (table any)) {
	t.Helper()
	before := heap()
	table := fill()
	if after := heap(); after > before+limit {
		t.Errorf("%T grew by %d MB, want at most %d MB", table, (after-before)>>20, limit>>20)
	}
	runtime.KeepAlive(table)
}

// Clients choose what they are counted by, such as an email address of 60 KB.
func TestSEC110SubjectsOfAnySizeTakeEqualRoom(t *testing.T) {
	subject := strings.Repeat("x", 60<<10)
	limited := func(i int) Key { return key("login", 5, 15*time.Minute, fmt.Sprint(i, subject))[0] }
	const subjects = 2_500
	bounded(t, 2<<20, func() any {
		m, _ := newMemory()
		for i := range subjects {
			pass(m, []Key{limited(i)})
		}
		return m
	})
	bounded(t, 2<<20, func() any {
		l := newLeases(time.Now)
		for i := range subjects {
			_, err := l.take(t.Context(), limited(i), func(context.Context, Key, int, time.Duration) (grant, error) { return grant{permits: 1}, nil })
			if err != nil {
				t.Fatal(err)
			}
		}
		return l
	})
}

// However many clients there are, and however often each of them comes.
func TestSEC110MemoryIsBoundedInBytes(t *testing.T) {
	t.Run("clients", func(t *testing.T) {
		bounded(t, 48<<20, func() any {
			m, _ := newMemory()
			for i := range 3 * maxKeys / 2 {
				pass(m, key("login", 5, 15*time.Minute, i))
			}
			return m
		})
	})
	t.Run("clients that were busy", func(t *testing.T) {
		const perClient = 20_000
		bounded(t, 24<<20, func() any {
			m, c := newMemory()
			for i := range 5 * maxMarks / 4 / perClient {
				one := key("general-ip", perClient, time.Hour, i)
				for range perClient - 1 {
					pass(m, one)
				}
				c.at = c.at.Add(time.Hour - time.Second)
				pass(m, one)
				c.at = c.at.Add(time.Second)
				pass(m, one)
			}
			return m
		})
	})
}

func BenchmarkMemoryFull(b *testing.B) {
	m, _ := newMemory()
	for i := range maxKeys {
		pass(m, key("general", 1, time.Minute, i))
	}
	for i := 0; b.Loop(); i++ {
		pass(m, key("general", 1, time.Minute, maxKeys+i))
	}
}
