package account

import (
	"context"
	"sync"
	"time"
)

// maintenanceStore is what runs in the background.
type maintenanceStore interface {
	// Sweep deletes what has expired.
	Sweep(ctx context.Context, now time.Time) error
	// HighestBcryptCost returns the highest cost of all bcrypt hashes, or 0 if there
	// are none.
	HighestBcryptCost(ctx context.Context) (int, error)
}

const (
	sweepInterval      = 10 * time.Minute
	bcryptCostInterval = time.Minute // how late an import is noticed
)

// Run handles link requests and does maintenance until ctx ends.
func (a *Accounts) Run(ctx context.Context) error {
	var tasks sync.WaitGroup
	tasks.Go(func() { a.handleLinkRequests(ctx) })
	tasks.Go(func() { a.maintain(ctx) })
	tasks.Wait()
	return nil
}

func (a *Accounts) maintain(ctx context.Context) {
	sweep, bcryptCost := time.NewTicker(sweepInterval), time.NewTicker(bcryptCostInterval)
	defer sweep.Stop()
	defer bcryptCost.Stop()
	a.loadBcryptCost(ctx)
	for {
		select {
		case <-ctx.Done():
			return
		case <-bcryptCost.C:
			a.loadBcryptCost(ctx)
		case <-sweep.C:
			if err := a.store.Sweep(ctx, a.time()); err != nil && ctx.Err() == nil {
				a.log.WarnContext(ctx, "sweep failed; retrying", "next_in", sweepInterval.String(), "error", err.Error())
			}
		}
	}
}

// loadBcryptCost tells the hasher which imported hashes take longest to check, so
// that every failed login takes as long.
func (a *Accounts) loadBcryptCost(ctx context.Context) {
	cost, err := a.store.HighestBcryptCost(ctx)
	if err != nil {
		if ctx.Err() == nil {
			a.log.WarnContext(ctx, "could not read hash parameters; retrying", "next_in", bcryptCostInterval.String(), "error", err.Error())
		}
		return
	}
	a.hasher.SetHighestBcryptCost(cost)
}
