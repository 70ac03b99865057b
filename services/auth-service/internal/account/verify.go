package account

import (
	"context"

	"github.com/headgate/headgate/pkg/event"
)

// VerifyEmail uses the secret of a verification link: once, before it expires,
// and only while the account still has the address that it was sent to. It fails
// with ErrTokenInvalid or ErrTokenExpired.
func (a *Accounts) VerifyEmail(ctx context.Context, secret string) (Account, error) {
	var verified Account
	err := a.store.UseToken(ctx, purposeVerifyEmail, hashSecret(secret), func(t OneTimeToken, c *Change) error {
		now := a.time()
		switch {
		case t.Email != c.Account.Email.Address:
			return ErrTokenInvalid
		case !now.Before(t.ExpiresAt):
			return ErrTokenExpired
		}
		c.Account.EmailVerified, c.Account.UpdatedAt = true, now
		verified = c.Account
		c.record(actAs(ctx, c.Account), now, event.UserEmailVerified{Email: t.Email})
		return nil
	})
	if err != nil {
		return Account{}, err
	}
	return verified, nil
}
