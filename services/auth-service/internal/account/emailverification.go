package account

import (
	"context"

	"github.com/headgate/headgate/pkg/event"
)

// ResendVerification requests another verification mail. Only the mail tells whether
// the address has an account. It fails with a validation problem only.
func (a *Accounts) ResendVerification(ctx context.Context, email string) error {
	return a.requestLink(ctx, LinkVerifyEmail, email)
}

// VerifyEmail uses a verification link: once, before it expires, and only while the
// account still has the address that it was mailed to. It fails with ErrTokenInvalid
// or ErrTokenExpired.
func (a *Accounts) VerifyEmail(ctx context.Context, secret string) (Account, error) {
	return a.useLink(ctx, LinkVerifyEmail, secret, func(ctx context.Context, t OneTimeToken, c *Change) error {
		if t.Email != c.Account.Email.Address {
			return ErrTokenInvalid
		}
		c.Account.EmailVerified, c.Account.UpdatedAt = true, a.time()
		c.record(ctx, c.Account.UpdatedAt, event.UserEmailVerified{Email: t.Email})
		return nil
	})
}
