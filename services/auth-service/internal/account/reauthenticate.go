package account

import (
	"context"
	"errors"

	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/pkg/token"
)

// Reauthenticate confirms the caller's identity for Lifetimes.Reauth: by the
// password, and by a code if the account has a second factor. It fails with a
// validation problem, ErrCurrentPassword, ErrCodeInvalid or ErrTooManyAttempts.
func (a *Accounts) Reauthenticate(ctx context.Context, caller token.Identity, current, code string) error {
	owner, err := a.confirmPassword(ctx, caller, "password", current)
	if err != nil {
		return err
	}
	var attempt CountedAttempt
	if owner.MFAEnabled {
		if err := validate(requiredCode(code)); err != nil {
			return err
		}
		if attempt, err = a.countFailedAttempt(ctx, codeAttempt, owner.Email); err != nil {
			return err
		}
	}
	var refused error
	err = a.updateOwnIfPassword(ctx, caller, owner, func(c *Change, own *Session) error {
		now := a.time()
		if c.Account.MFAEnabled {
			valid, err := a.useCode(ctx, c, code)
			if err != nil {
				return err
			}
			if !valid {
				refused = c.codeRefused(ctx, now)
				return nil
			}
			c.ClearAttempts = attempt.Key
		}
		own.AuthenticatedAt, own.Proved = now, own.Proved || c.Account.PasswordProved
		c.record(ctx, now, event.UserReauthenticated{SessionID: caller.SessionID})
		return nil
	})
	return errors.Join(err, refused)
}
