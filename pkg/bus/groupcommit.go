package bus

import (
	"context"
	"fmt"
	"sync"
	"time"
)

// GroupCommit lets handlers that run at the same time share one write: while one
// is under way, what comes meanwhile gathers for the next. It is safe for
// concurrent use.
type GroupCommit[T any] struct {
	cfg GroupCommitConfig[T]

	mu      sync.Mutex
	queue   []shared[T]
	writers int
}

// GroupCommitConfig says how a group is written.
type GroupCommitConfig[T any] struct {
	// Write writes all items or none. It is called again with fewer when it fails.
	Write func(ctx context.Context, items []T) error
	// Unavailable tells errors which fewer items would not mend.
	Unavailable func(error) bool
	Limit       int           // of items in one write
	Writers     int           // that write at the same time
	Timeout     time.Duration // for one write
}

type shared[T any] struct {
	item T
	done chan error
}

// NewGroupCommit returns a GroupCommit.
func NewGroupCommit[T any](cfg GroupCommitConfig[T]) *GroupCommit[T] {
	return &GroupCommit[T]{cfg: cfg}
}

// Do returns when the item is written, or with the error of a write that had no
// other item in it: an item that cannot be written hurts no other. When ctx ends
// first, the item may still be written.
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
		return fmt.Errorf("wait for the group: %w", ctx.Err())
	}
}

// run writes until nothing is left. It ends before the last Do that waits for it.
func (g *GroupCommit[T]) run(ctx context.Context) {
	for {
		g.mu.Lock()
		n := min(len(g.queue), g.cfg.Limit)
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

// write halves a batch that fails until the item is found that makes it fail.
func (g *GroupCommit[T]) write(ctx context.Context, batch []shared[T]) {
	items := make([]T, len(batch))
	for i, b := range batch {
		items[i] = b.item
	}
	limited, cancel := context.WithTimeout(ctx, g.cfg.Timeout)
	err := g.cfg.Write(limited, items)
	cancel()
	if err == nil || len(batch) == 1 || g.cfg.Unavailable(err) {
		for _, b := range batch {
			b.done <- err
		}
		return
	}
	half := len(batch) / 2
	g.write(ctx, batch[:half])
	g.write(ctx, batch[half:])
}
