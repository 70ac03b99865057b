package account

import (
	"context"
	"time"

	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/pkg/token"
)

// Delete deletes the caller's account permanently. It fails with ErrCurrentPassword,
// ErrReauthRequired, ErrConflict or ErrLastAdmin.
func (a *Accounts) Delete(ctx context.Context, caller token.Identity, with Confirmation) error {
	by, err := a.confirm(ctx, caller, "password", with)
	if err != nil {
		return err
	}
	return a.updateOwnSensitive(ctx, caller, allSessions, by, func(c *Change) error {
		c.deleteAccount(ctx, a.time(), deletedByRequest)
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
	c.revokeSessions(ctx, now, reasonDeleted)
	c.Deleted = true
	c.record(ctx, now, event.UserDeleted{Role: c.Account.Role, Status: c.Account.Status, Reason: reason})
}
