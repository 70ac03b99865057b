package ratelimit

import (
	"context"
	"fmt"
	"math"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/headgate/headgate/pkg/testkit"
)

// passed is a request that passed at some time between asked and answered.
type passed struct{ asked, answered time.Time }

// most returns how many requests certainly passed within one window.
func most(all []passed, window time.Duration) int {
	slices.SortFunc(all, func(a, b passed) int { return a.asked.Compare(b.asked) })
	worst := 0
	for i, first := range all {
		n := 0
		for _, p := range all[i:] {
			if p.answered.Sub(first.asked) < window {
				n++
			}
		}
		worst = max(worst, n)
	}
	return worst
}

// TestLeasesNeverLetMorePass has three gateways hammer one key with a window of two
// seconds: never more than the limit pass in any window, and not much less.
func TestLeasesNeverLetMorePass(t *testing.T) {
	t.Parallel()
	const limit, window, length = 100, 2 * time.Second, 9 * time.Second
	client := testkit.Redis(t)
	one := key("general", limit, window, "ann")[0]
	var mu sync.Mutex
	var all []passed
	var wg sync.WaitGroup
	until := time.Now().Add(length)
	for range 3 {
		l := New(client, testkit.Log(t), prometheus.NewRegistry(), time.Now)
		for range 4 {
			wg.Go(func() {
				pace := time.NewTicker(time.Millisecond)
				defer pace.Stop()
				for time.Now().Before(until) {
					<-pace.C
					p := passed{asked: time.Now()}
					d, ok := l.TakeLease(t.Context(), one)
					p.answered = time.Now()
					if !ok {
						t.Error("the limit is off")
						return
					}
					if d.Allowed {
						mu.Lock()
						all = append(all, p)
						mu.Unlock()
					}
				}
			})
		}
	}
	wg.Wait()
	if got := most(all, window); got > limit {
		t.Errorf("%d passed within one window, limit %d", got, limit)
	}
	// The first window lets the limit pass at once, and so does each one begun.
	share := float64(len(all)) / (limit * math.Ceil(float64(length)/float64(window)))
	t.Logf("passed %d: %.2f of what the limit allows", len(all), share)
	if share < 0.4 { // A quiet machine reaches 1. The lease of a process that gets no time ends unused.
		t.Errorf("only %.2f of the limit passed", share)
	}
}

// stub grants the wanted permits while any are left, and counts how often it is asked.
type stub struct {
	mu    sync.Mutex
	left  int
	asked int
}

func (s *stub) ask(_ context.Context, _ Key, want int, _ time.Duration) (grant, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked++
	got := min(want, s.left)
	s.left -= got
	return grant{permits: got, reset: time.Minute}, nil
}

// TestLeaseSizes: a frequent client costs few round trips, an occasional one wastes no permits.
func TestLeaseSizes(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		pause           time.Duration
		asked, leftover int
	}{
		{0, 22, 0},                 // 1 2 4 8 16 32, then 50 at a time
		{time.Millisecond, 22, 0},  // the same: all within the life of a lease
		{time.Second, 650, 200},    // some end unused
		{4 * time.Second, 1000, 0}, // one at a time
	} {
		s, c := &stub{left: 1_000_000}, &clock{at: time.Unix(1_700_000_000, 0)}
		l := newLeases(c.now)
		one := key("general", 1000, time.Minute, "ann")[0]
		for range 1000 {
			c.at = c.at.Add(tc.pause)
			if d, err := l.take(t.Context(), one, s.ask); err != nil || !d.Allowed {
				t.Fatal(d, err)
			}
		}
		wasted := 1_000_000 - s.left - 1000 - l.of(one).permits
		if s.asked > tc.asked+3 || wasted > tc.leftover {
			t.Errorf("every %s: asked %d times, %d permits wasted; want %d and %d", tc.pause, s.asked, wasted, tc.asked, tc.leftover)
		}
	}
}

// TestRejectedLeases: a rejected client costs one round trip for each life of a lease, and
// learns when to retry.
func TestRejectedLeases(t *testing.T) {
	t.Parallel()
	s, c := &stub{left: 1}, &clock{at: time.Unix(1_700_000_000, 0)}
	l := newLeases(c.now)
	one := key("general", 1000, time.Minute, "ann")[0]
	for i := range 1001 {
		d, err := l.take(t.Context(), one, s.ask)
		if err != nil || d.Allowed != (i == 0) {
			t.Fatalf("%d: %+v %v", i, d, err)
		}
		if i > 0 && (d.Reset > time.Minute || d.Reset < 50*time.Second) {
			t.Fatalf("%d: retry in %s", i, d.Reset)
		}
		c.at = c.at.Add(time.Millisecond)
	}
	if s.asked > 3 {
		t.Errorf("asked %d times", s.asked)
	}
}

func TestManyLeasedKeys(t *testing.T) {
	t.Parallel()
	s := &stub{left: 1_000_000}
	l := newLeases(time.Now)
	for i := range maxLeases + 1000 {
		if _, err := l.take(t.Context(), key("general", 1000, time.Minute, i)[0], s.ask); err != nil {
			t.Fatal(err)
		}
	}
	if len(l.byKey) > maxLeases {
		t.Errorf("%d keys are leased", len(l.byKey))
	}
}

func BenchmarkTakeLease(b *testing.B) {
	s := &stub{left: 1 << 60}
	l := newLeases(time.Now)
	keys := make([]Key, 1000)
	for i := range keys {
		keys[i] = key("general", 1_000_000, time.Minute, fmt.Sprint("user ", i))[0]
	}
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for i := 0; pb.Next(); i++ {
			if _, err := l.take(b.Context(), keys[i%len(keys)], s.ask); err != nil {
				b.Error(err)
			}
		}
	})
}
