package account

import (
	"context"
	"maps"
	"slices"
	"time"

	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/pkg/token"
)

// Delete deletes the caller's account permanently, or ends its sessions and schedules the
// deletion if there is a Lifetimes.DeletionGrace, in which a sign-in cancels it. It returns
// when the account will be deleted, or the zero time if it was. It fails with
// ErrCurrentPassword, ErrReauthRequired, ErrConflict or ErrLastAdmin.
func (a *Accounts) Delete(ctx context.Context, caller token.Identity, with Confirmation) (deleteAt time.Time, err error) {
	by, err := a.confirm(ctx, caller, "password", with)
	if err != nil {
		return time.Time{}, err
	}
	err = a.updateOwnSensitive(ctx, caller, allSessions, by, func(c *Change) error {
		now := a.time()
		if a.lifetimes.DeletionGrace == 0 {
			c.deleteAccount(ctx, now, deletedByRequest)
			return nil
		}
		deleteAt = now.Add(a.lifetimes.DeletionGrace)
		return c.scheduleDeletion(ctx, now, deleteAt)
	})
	return deleteAt, err
}

// scheduleDeletion ends all sessions and notifies the owner, who may not have asked for it.
func (c *Change) scheduleDeletion(ctx context.Context, now, deleteAt time.Time) error {
	c.Account.DeleteAt, c.Account.UpdatedAt = deleteAt, now
	c.revokeSessions(ctx, now, ReasonDeleted)
	return c.notify(ctx, now, event.UserDeletionScheduled{DeleteAt: deleteAt, Email: c.Account.Email.Address, Name: c.Account.Name})
}

// cancelDeletion is called for every sign-in.
func (c *Change) cancelDeletion(ctx context.Context, now time.Time) {
	if c.Account.DeleteAt.IsZero() {
		return
	}
	c.Account.DeleteAt, c.Account.UpdatedAt = time.Time{}, now
	c.Events = append(c.Events, deletionCancelled(ctx, now, c.Account))
}

// deletionCancelled returns the notice about a sign-in that has cancelled the deletion of an
// account. Nobody is mailed at an address that was not verified: deleting and signing in again
// would fill another person's mailbox.
func deletionCancelled(ctx context.Context, now time.Time, a Account) event.Event {
	e := event.New(ctx, now, a.ID, event.UserDeletionCancelled{Email: a.Email.Address, Name: a.Name})
	if !a.EmailVerified {
		e = withoutMail(e)
	}
	return e
}

// DeleteDue deletes the accounts whose time has come. Run calls it regularly. First it cancels the
// deletions whose owners have signed in through a release without a grace, which cancels none, as
// after a rollback.
func (a *Accounts) DeleteDue(ctx context.Context) error {
	ctx = event.WithActor(ctx, event.Actor{Type: "service"})
	now := a.time()
	outlived := map[string]time.Time{}
	err := a.eachBatch(ctx, func(after string) ([]string, error) {
		found, err := a.store.OutlivedDeletions(ctx, after, purgeBatch)
		maps.Copy(outlived, found)
		return slices.Sorted(maps.Keys(found)), err
	}, func(c *Change) error {
		if c.Account.DeleteAt.Equal(outlived[c.Account.ID]) { // It was not asked for again.
			c.cancelDeletion(ctx, a.time())
		}
		return nil
	})
	if err != nil {
		return err
	}
	return a.eachBatch(ctx, func(after string) ([]string, error) {
		return a.store.DueDeletions(ctx, now, after, purgeBatch)
	}, func(c *Change) error {
		if len(c.Sessions) > 0 { // Its owner has just signed in.
			return nil
		}
		if !c.Account.DeleteAt.IsZero() && !c.Account.DeleteAt.After(now) {
			c.deleteAccount(ctx, a.time(), deletedByRequest)
		}
		return nil
	})
}

// The reasons of deletions. Without one, the owner or an administrator asked for it.
const (
	deletedByRequest  = ""
	deletedRejected   = "rejected"   // by a person who reads the mail and did not make the account
	deletedReplaced   = "replaced"   // by a newer sign-up with the address
	deletedUnverified = "unverified" // for too long
)

func (c *Change) deleteAccount(ctx context.Context, now time.Time, reason string) {
	c.revokeSessions(ctx, now, ReasonDeleted)
	c.Deleted = true
	c.record(ctx, now, event.UserDeleted{Role: c.Account.Role, Status: c.Account.Status, Reason: reason})
}
