package postgres

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"
)

// Clock tells the time of a database. The replicas of a service share their database but
// not their clocks, so whatever is stored by one and compared by another, such as an expiry,
// a lease or a delay, is measured with it. Between its readings of the database it goes on
// with the monotonic clock of this process, so a step of the clock of the host does not
// matter. It differs from the clock of the database by no more than half a round trip. It is
// safe for concurrent use.
type Clock struct {
	db  Querier
	log *slog.Logger

	mu   sync.RWMutex
	read time.Time // when the database was read, by this process
	at   time.Time // the time of the database then
	off  bool      // whether the clock of the host differed noticeably
}

const (
	clockInterval = 10 * time.Second
	clockReadings = 3 // of which the fastest counts
	clockTimeout  = 5 * time.Second
	// clockDifference is how far the clocks of host and database may differ before that is
	// logged. Verifiers of access tokens tolerate a little more.
	clockDifference = 2 * time.Second
)

// NewClock returns a clock that has read the database once. Its Run reads it regularly.
func NewClock(ctx context.Context, db Querier, log *slog.Logger) (*Clock, error) {
	c := &Clock{db: db, log: log}
	return c, c.adjust(ctx)
}

// Now returns the time of the database.
func (c *Clock) Now() time.Time {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.at.Add(time.Since(c.read))
}

// Run reads the time of the database every few seconds until ctx ends. While the database is
// unavailable, the clock goes on by itself.
func (c *Clock) Run(ctx context.Context) error {
	tick := time.NewTicker(clockInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			_ = c.adjust(ctx) // The readiness check reports that Postgres is unavailable.
		}
	}
}

func (c *Clock) adjust(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, clockTimeout)
	defer cancel()
	var at, read time.Time
	fastest := clockTimeout
	for range clockReadings {
		var found time.Time
		began := time.Now()
		if err := c.db.QueryRow(ctx, `SELECT clock_timestamp()`).Scan(&found); err != nil {
			return fmt.Errorf("read the clock of the database: %w", err)
		}
		if took := time.Since(began); took < fastest {
			fastest, at, read = took, found, began.Add(took/2)
		}
	}
	difference := at.Sub(read)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at, c.read = at, read
	if off := difference.Abs() > clockDifference; off != c.off {
		c.off = off
		if off {
			c.log.WarnContext(ctx, "the clocks of this host and of the database differ", "seconds", difference.Seconds())
		} else {
			c.log.InfoContext(ctx, "the clocks of this host and of the database agree again")
		}
	}
	return nil
}
