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
	err := a.store.UseToken(ctx, purposeVerifyEmail, hashSecret(secret), func(t *OneTimeToken, owner *Account) ([]event.Event, error) {
		now := a.time()
		switch {
		case !t.UsedAt.IsZero() || t.Email != owner.Email.Address:
			return nil, ErrTokenInvalid
		case !now.Before(t.ExpiresAt):
			return nil, ErrTokenExpired
		}
		t.UsedAt = now
		owner.EmailVerified, owner.UpdatedAt = true, now
		verified = *owner
		return []event.Event{event.New(actAs(ctx, *owner), now, owner.ID, event.UserEmailVerified{Email: owner.Email.Address})}, nil
	})
	if err != nil {
		return Account{}, err
	}
	return verified, nil
}
