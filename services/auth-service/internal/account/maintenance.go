package account

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/headgate/headgate/pkg/event"
)

// maintenanceStore is what runs in the background.
type maintenanceStore interface {
	// Sweep deletes what has expired.
	Sweep(ctx context.Context, now time.Time) error
	// HighestBcryptCost returns the highest cost of all bcrypt hashes, or 0 if there
	// are none.
	HighestBcryptCost(ctx context.Context) (int, error)
	// HashParameters returns the distinct kinds and parameters of all hashes that are neither
	// bcrypt nor Argon2.
	HashParameters(ctx context.Context) ([]string, error)
	// ProvisionalAccounts returns up to limit ids of provisional, unverified accounts
	// that were created before a time, in order, after the id after.
	ProvisionalAccounts(ctx context.Context, created time.Time, after string, limit int) ([]string, error)
	// DueDeletions returns up to limit ids of accounts that are to be deleted by now, in
	// order, after the id after.
	DueDeletions(ctx context.Context, now time.Time, after string, limit int) ([]string, error)
	// OutlivedDeletions returns up to limit accounts that are to be deleted although their owners
	// have signed in since they asked for it, the first after the id after: by their ids, when
	// they are to be deleted.
	OutlivedDeletions(ctx context.Context, after string, limit int) (map[string]time.Time, error)
}

const (
	sweepInterval    = 10 * time.Minute
	hashCostInterval = time.Minute // how late an import is noticed
	purgeBatch       = 100
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
	sweep, hashCost := time.NewTicker(sweepInterval), time.NewTicker(hashCostInterval)
	defer sweep.Stop()
	defer hashCost.Stop()
	a.loadHashCosts(ctx)
	for {
		select {
		case <-ctx.Done():
			return
		case <-hashCost.C:
			a.loadHashCosts(ctx)
		case <-sweep.C:
			if err := a.store.Sweep(ctx, a.time()); err != nil && ctx.Err() == nil {
				a.log.WarnContext(ctx, "sweep failed; retrying", "next_in", sweepInterval.String(), "error", err.Error())
			}
			if err := a.DeleteDue(ctx); err != nil && ctx.Err() == nil {
				a.log.WarnContext(ctx, "deletion of accounts failed; retrying", "next_in", sweepInterval.String(), "error", err.Error())
			}
			if err := a.PurgeUnverified(ctx); err != nil && ctx.Err() == nil {
				a.log.WarnContext(ctx, "purge of unverified accounts failed; retrying", "next_in", sweepInterval.String(), "error", err.Error())
			}
		}
	}
}

// PurgeUnverified deletes the provisional accounts whose address was not verified within
// Lifetimes.Unverified, as their owners could, and so frees the addresses. Run calls it
// regularly.
func (a *Accounts) PurgeUnverified(ctx context.Context) error {
	if a.lifetimes.Unverified == 0 {
		return nil
	}
	ctx = event.WithActor(ctx, event.Actor{Type: "service"})
	created := a.time().Add(-a.lifetimes.Unverified)
	return a.eachBatch(ctx, func(after string) ([]string, error) {
		return a.store.ProvisionalAccounts(ctx, created, after, purgeBatch)
	}, func(c *Change) error {
		if c.Account.Provisional && c.Account.unclaimed() && c.Account.CreatedAt.Before(created) {
			c.deleteAccount(ctx, a.time(), deletedUnverified)
		}
		return nil
	})
}

// eachBatch lets decide change every account that list returns, up to purgeBatch at a time, in
// the order of their ids after the given one.
func (a *Accounts) eachBatch(ctx context.Context, list func(after string) ([]string, error), decide func(c *Change) error) error {
	for after := ""; ; {
		ids, err := list(after)
		if err != nil {
			return err
		}
		for _, id := range ids {
			err := a.update(ctx, id, allSessions, decide)
			if err != nil && !errors.Is(err, ErrNotFound) {
				return err
			}
		}
		if len(ids) < purgeBatch {
			return nil
		}
		after = ids[len(ids)-1]
	}
}

// loadHashCosts tells the hasher which imported hashes take longest to check, so
// that every failed login takes as long.
func (a *Accounts) loadHashCosts(ctx context.Context) {
	cost, err := a.store.HighestBcryptCost(ctx)
	parameters, paramErr := a.store.HashParameters(ctx)
	if err := errors.Join(err, paramErr); err != nil {
		if ctx.Err() == nil {
			a.log.WarnContext(ctx, "could not read hash parameters; retrying", "next_in", hashCostInterval.String(), "error", err.Error())
		}
		return
	}
	a.hasher.SetStored(cost, parameters)
}
