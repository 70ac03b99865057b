package account

import (
	"context"
	"time"

	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/pkg/token"
)

// Delete deletes the caller's account permanently, if current is its password. It
// fails with ErrCurrentPassword, ErrReauthRequired, ErrConflict or ErrLastAdmin.
func (a *Accounts) Delete(ctx context.Context, caller token.Identity, current string) error {
	owner, err := a.confirmPassword(ctx, caller, "password", current)
	if err != nil {
		return err
	}
	return a.updateOwnSensitive(ctx, caller, owner, func(c *Change) error {
		c.deleteAccount(ctx, a.time())
		return nil
	})
}

func (c *Change) deleteAccount(ctx context.Context, now time.Time) {
	c.revokeSessions(ctx, now, reasonDeleted)
	c.Deleted = true
	c.record(ctx, now, event.UserDeleted{Role: c.Account.Role, Status: c.Account.Status})
}
