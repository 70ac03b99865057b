package bus_test

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/headgate/headgate/pkg/bus"
)

// sink stands in for a table.
type sink struct {
	mu          sync.Mutex
	rows        []int
	writes      int
	unavailable bool
	block       chan struct{} // if not nil, writes wait until it is closed
}

var errBadRow = errors.New("bad row")

func (s *sink) write(_ context.Context, items []int) error {
	if s.block != nil {
		<-s.block
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.writes++
	if s.unavailable {
		return errUnavailable
	}
	if slices.Contains(items, 13) {
		return errBadRow
	}
	s.rows = append(s.rows, items...)
	return nil
}

func (s *sink) group(limit int) *bus.GroupCommit[int] {
	return bus.NewGroupCommit(bus.GroupCommitConfig[int]{
		Write: s.write, Unavailable: func(err error) bool { return errors.Is(err, errUnavailable) }, Limit: limit, Writers: 1, Timeout: time.Second,
	})
}

func doAll(t *testing.T, g *bus.GroupCommit[int], n int) []error {
	t.Helper()
	errs := make([]error, n)
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() { errs[i] = g.Do(t.Context(), i) })
	}
	wg.Wait()
	return errs
}

// TestGroupCommit: concurrent items are written, and a bad row fails alone.
func TestGroupCommit(t *testing.T) {
	t.Parallel()
	s := &sink{}
	for i, err := range doAll(t, s.group(64), 100) {
		if (i == 13) != errors.Is(err, errBadRow) {
			t.Errorf("Do(%d) = %v", i, err)
		}
	}
	slices.Sort(s.rows)
	if len(s.rows) != 99 || len(slices.Compact(s.rows)) != 99 {
		t.Errorf("%d rows: %v", len(s.rows), s.rows)
	}
}

// TestGroupCommitShares: items that arrive during a write share the next one.
func TestGroupCommitShares(t *testing.T) {
	t.Parallel()
	s := &sink{block: make(chan struct{})}
	g := s.group(1000)
	var wg sync.WaitGroup
	started := make(chan struct{}, 100)
	for range 100 {
		wg.Go(func() {
			started <- struct{}{}
			if err := g.Do(t.Context(), 1); err != nil {
				t.Error(err)
			}
		})
	}
	for range 100 {
		<-started
	}
	close(s.block)
	wg.Wait()
	if s.writes > 50 || len(s.rows) != 100 {
		t.Errorf("%d writes for %d rows", s.writes, len(s.rows))
	}
}

// TestGroupCommitUnavailable: in an outage, a failed batch is not split.
func TestGroupCommitUnavailable(t *testing.T) {
	t.Parallel()
	s := &sink{unavailable: true}
	for i, err := range doAll(t, s.group(1000), 100) {
		if !errors.Is(err, errUnavailable) {
			t.Errorf("Do(%d) = %v", i, err)
		}
	}
	if s.writes > 100 {
		t.Errorf("%d writes", s.writes)
	}
}

func TestGroupCommitContextEnds(t *testing.T) {
	t.Parallel()
	s := &sink{block: make(chan struct{})}
	g := s.group(10)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := g.Do(ctx, 1); !errors.Is(err, context.Canceled) {
		t.Errorf("Do = %v", err)
	}
	close(s.block)
}

// TestGroupCommitBoundsTheSize: items that are large together are written apart.
func TestGroupCommitBoundsTheSize(t *testing.T) {
	t.Parallel()
	s := &sink{block: make(chan struct{})}
	g := bus.NewGroupCommit(bus.GroupCommitConfig[int]{
		Write: s.write, Unavailable: func(error) bool { return false }, Limit: 100, Writers: 1, Timeout: time.Second,
		Size: func(int) int { return 40 }, SizeLimit: 100,
	})
	var wg sync.WaitGroup
	for range 9 {
		wg.Go(func() {
			if err := g.Do(t.Context(), 1); err != nil {
				t.Error(err)
			}
		})
	}
	close(s.block)
	wg.Wait()
	if s.writes < 5 || len(s.rows) != 9 {
		t.Errorf("%d rows in %d writes, want 9 in at least 5", len(s.rows), s.writes)
	}
}

// TestGroupCommitContended is REL-78: a group waits for locks a few times at most, and
// only the items that wait fail. If all wait, all fail soon.
func TestGroupCommitContended(t *testing.T) {
	t.Parallel()
	for name, locked := range map[string][]int{"one": {250}, "two": {0, 499}, "all": nil} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			waits, writing, first := 0, make(chan struct{}, 1000), make(chan struct{})
			g := bus.NewGroupCommit(bus.GroupCommitConfig[int]{
				Write: func(_ context.Context, items []int) error {
					writing <- struct{}{}
					<-first
					if items[0] != -1 && (locked == nil || slices.ContainsFunc(items, func(i int) bool { return slices.Contains(locked, i) })) {
						waits++
						return errLocked
					}
					return nil
				},
				Unavailable: func(error) bool { return false },
				Contended:   func(err error) bool { return errors.Is(err, errLocked) },
				Limit:       500, Writers: 1, Timeout: time.Second,
			})
			var wg sync.WaitGroup
			errs := make([]error, 500)
			wg.Go(func() { _ = g.Do(t.Context(), -1) })
			<-writing // The others queue behind it.
			for i := range errs {
				wg.Go(func() { errs[i] = g.Do(t.Context(), i) })
			}
			time.AfterFunc(200*time.Millisecond, func() { close(first) })
			wg.Wait()
			for i, err := range errs {
				if (locked == nil || slices.Contains(locked, i)) != errors.Is(err, errLocked) {
					t.Errorf("Do(%d) = %v", i, err)
				}
			}
			if waits > 2*6 { // The items may make two groups.
				t.Errorf("%d writes waited, want a few", waits)
			}
		})
	}
}

var errLocked = errors.New("lock timeout")
