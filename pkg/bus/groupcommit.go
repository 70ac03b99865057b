package bus

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"sync"
	"time"
)

// GroupCommit lets concurrent handlers share one write: items that arrive during a
// write go into the next one. It is safe for concurrent use.
type GroupCommit[T any] struct {
	cfg GroupCommitConfig[T]

	mu      sync.Mutex
	queue   []shared[T]
	writers int
}

// GroupCommitConfig says how a group of items is written.
type GroupCommitConfig[T any] struct {
	// Write writes all items or none. If it fails, it is called again with fewer items.
	Write func(ctx context.Context, items []T) error
	// Unavailable reports whether an error would also occur with fewer items.
	Unavailable func(error) bool
	// Contended reports whether an error means that a write waited for a lock in vain. It
	// is called again with few items to find the one that waits, and a group waits
	// contendedWrites times at most. No error does if it is nil.
	Contended func(error) bool
	Limit     int // items in one write
	// Size returns the size of an item. A write is at most SizeLimit large, unless it has
	// a single item: a write that takes too long looks like a database that is unavailable.
	// Sizes have no effect if it is nil.
	Size      func(T) int
	SizeLimit int
	Writers   int           // concurrent writes
	Timeout   time.Duration // for one write
}

type shared[T any] struct {
	item T
	done chan error
}

// NewGroupCommit returns a GroupCommit.
func NewGroupCommit[T any](cfg GroupCommitConfig[T]) *GroupCommit[T] {
	return &GroupCommit[T]{cfg: cfg}
}

// Do returns when the item is written. An item that cannot be written does not
// affect the others: Do returns the error of a write of this item alone, or an
// error for which Unavailable or Contended is true. If ctx ends first, Do returns its error, and
// the item may still be written.
func (g *GroupCommit[T]) Do(ctx context.Context, item T) error {
	done := make(chan error, 1)
	g.mu.Lock()
	g.queue = append(g.queue, shared[T]{item, done})
	if g.writers < g.cfg.Writers {
		g.writers++
		go g.run(context.WithoutCancel(ctx))
	}
	g.mu.Unlock()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return fmt.Errorf("wait for group commit: %w", ctx.Err())
	}
}

// run writes until the queue is empty.
func (g *GroupCommit[T]) run(ctx context.Context) {
	for {
		g.mu.Lock()
		n := g.next()
		if n == 0 {
			g.writers--
			g.mu.Unlock()
			return
		}
		batch := g.queue[:n:n]
		g.queue = g.queue[n:]
		g.mu.Unlock()
		g.write(ctx, batch)
	}
}

// next returns the number of items in the next write.
func (g *GroupCommit[T]) next() int {
	n := min(len(g.queue), g.cfg.Limit)
	if g.cfg.Size == nil {
		return n
	}
	size := 0
	for i, queued := range g.queue[:n] {
		if size += g.cfg.Size(queued.item); size > g.cfg.SizeLimit {
			return max(1, i)
		}
	}
	return n
}

// contendedWrites is how often one group may wait for locks: enough to find two items
// that wait. If more wait, or all do because the whole table is locked, the
// rest of the group fails at once, to be tried again in other groups.
const contendedWrites = 6

// errNotWritten says that an item was not written because others of its group waited for
// locks too often. Whether the item would wait is not known.
var errNotWritten = errors.New("group waited for locks too often")

// groupWrite is the write of one group, in parts if it fails.
type groupWrite[T any] struct {
	*GroupCommit[T]

	waits     int   // that are left
	contended error // the last one
}

func (g *GroupCommit[T]) write(ctx context.Context, batch []shared[T]) {
	w := groupWrite[T]{GroupCommit: g, waits: contendedWrites}
	w.write(ctx, batch)
}

// write splits a failed batch until it has found the item that fails.
func (w *groupWrite[T]) write(ctx context.Context, batch []shared[T]) {
	if w.waits == 0 {
		finish(batch, fmt.Errorf("%w: %w", errNotWritten, w.contended))
		return
	}
	items := make([]T, len(batch))
	for i, b := range batch {
		items[i] = b.item
	}
	limited, cancel := context.WithTimeout(ctx, w.cfg.Timeout)
	err := w.cfg.Write(limited, items)
	cancel()
	contended := err != nil && w.cfg.Contended != nil && w.cfg.Contended(err)
	if contended {
		w.waits, w.contended = w.waits-1, err
	}
	if err == nil || len(batch) == 1 || w.cfg.Unavailable(err) {
		finish(batch, err)
		return
	}
	size := (len(batch) + 1) / 2
	if contended {
		size = partOfContended(len(batch))
	}
	for part := range slices.Chunk(batch, size) {
		w.write(ctx, part)
	}
}

// partOfContended returns the size of the parts of a write that waited in vain. A write
// that waits costs more than many that do not: with these parts, the third that waits is
// that of one item alone; with halves of 500, the tenth is.
func partOfContended(n int) int {
	if n <= 32 {
		return 1
	}
	return int(math.Ceil(math.Sqrt(float64(n))))
}

func finish[T any](batch []shared[T], err error) {
	for _, b := range batch {
		b.done <- err
	}
}
