package account

import (
	"context"

	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/pkg/token"
	"github.com/headgate/headgate/services/auth-service/internal/signing"
)

// ChangePassword gives the caller's account a new password. All sessions end, even
// the current one, because a thief may have its tokens as well. The caller gets a
// new session. It fails with a validation problem, ErrWeakPassword,
// ErrCurrentPassword, ErrReauthRequired, ErrConflict or password.ErrBusy.
func (a *Accounts) ChangePassword(ctx context.Context, caller token.Identity, current, next string) (signing.Tokens, error) {
	secret, passwordErr := a.newPassword("newPassword", next)
	if err := validate(passwordErr); err != nil {
		return signing.Tokens{}, err
	}
	owner, err := a.confirmPassword(ctx, caller, "currentPassword", current)
	if err != nil {
		return signing.Tokens{}, err
	}
	hash, err := a.hashNew(ctx, owner, secret)
	if err != nil {
		return signing.Tokens{}, err
	}
	var tokens signing.Tokens
	err = a.updateOwnSensitive(ctx, caller, owner, func(c *Change) error {
		now := a.time()
		c.Account.PasswordProved = c.Account.PasswordProved || c.provedBy(caller)
		c.Account.PasswordHash, c.Account.UpdatedAt = hash, now
		c.revokeTokens(LinkResetPassword, LinkChangeEmail)
		device := c.session(caller.SessionID).DeviceName
		c.revokeSessions(ctx, now, reasonPasswordChanged)
		if err := c.notify(ctx, now, event.UserPasswordChanged{Method: "change", Email: c.Account.Email.Address, Name: c.Account.Name}); err != nil {
			return err
		}
		session := a.newSession(ctx, c.Account, device)
		c.NewSession = &session
		tokens, err = a.issueTokens(c.Account, session, now)
		return err
	})
	return tokens, err
}
