package account

import (
	"context"

	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/services/auth-service/internal/factor"
)

// ForgotPassword requests a mail with a link to choose a new password. Only the mail
// tells whether the address has an account. It fails with a validation problem only.
func (a *Accounts) ForgotPassword(ctx context.Context, email string) error {
	return a.requestLink(ctx, LinkResetPassword, email)
}

// ResetPassword uses a reset link. All sessions end and none begins: the user must
// sign in with the new password. It fails with a validation problem, ErrWeakPassword,
// ErrTokenInvalid, ErrTokenExpired or password.ErrBusy.
func (a *Accounts) ResetPassword(ctx context.Context, secret, next string) error {
	chosen, passwordErr := a.newPassword("newPassword", next)
	if err := validate(passwordErr); err != nil {
		return err
	}
	// Hash before the account is locked, and only if the link is valid.
	_, owner, err := a.store.TokenOwner(ctx, LinkResetPassword, hashSecret(secret))
	if err != nil {
		return err
	}
	hash, err := a.hashNew(ctx, owner, chosen)
	if err != nil {
		return err
	}
	_, err = a.useLink(ctx, LinkResetPassword, secret, func(ctx context.Context, t OneTimeToken, c *Change) error {
		if t.Email != c.Account.Email.Address || c.Account.Status != Active {
			return ErrTokenInvalid
		}
		now := a.time()
		firstProof := !c.Account.EmailVerified
		if firstProof {
			c.record(ctx, now, event.UserEmailVerified{Email: t.Email})
		}
		c.Account.PasswordHash, c.Account.PasswordProved = hash, true
		c.Account.EmailVerified, c.Account.UpdatedAt = true, now
		c.revokeTokens(LinkResetPassword, LinkVerifyEmail, LinkChangeEmail)
		c.revokeSessions(ctx, now, reasonPasswordReset)
		if firstProof {
			// Another person may have created the account with this address and added a
			// passkey to sign in with. A TOTP app does not give access.
			if err := c.removeFactors(ctx, now, func(f Factor) bool { return f.Kind == factor.KindPasskey }); err != nil {
				return err
			}
		}
		return c.notify(ctx, now, event.UserPasswordChanged{Method: "reset", Email: t.Email, Name: c.Account.Name})
	})
	return err
}
