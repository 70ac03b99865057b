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
	return a.updateOwnSensitive(ctx, caller, by, func(c *Change) error {
		c.deleteAccount(ctx, a.time())
		return nil
	})
}

func (c *Change) deleteAccount(ctx context.Context, now time.Time) {
	c.revokeSessions(ctx, now, reasonDeleted)
	c.Deleted = true
	c.record(ctx, now, event.UserDeleted{Role: c.Account.Role, Status: c.Account.Status})
}
