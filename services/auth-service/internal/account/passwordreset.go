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
// sign in with the new password. A TOTP factor stays, because a reset must not bypass it.
// It fails with a validation problem, ErrWeakPassword, ErrTokenInvalid, ErrTokenExpired or
// password.ErrBusy.
func (a *Accounts) ResetPassword(ctx context.Context, secret string, to NewPassword) (Replaced, error) {
	chosen, passwordErr := a.newPassword("newPassword", to.Password)
	if err := validate(passwordErr); err != nil {
		return Replaced{}, err
	}
	// Hash before the account is locked, and only if the link is valid.
	_, owner, err := a.store.TokenOwner(ctx, LinkResetPassword, hashSecret(secret))
	if err != nil {
		return Replaced{}, err
	}
	if to.Password, err = a.hashNew(ctx, owner, chosen); err != nil {
		return Replaced{}, err
	}
	var replaced Replaced
	_, err = a.useLink(ctx, LinkResetPassword, secret, func(ctx context.Context, t OneTimeToken, c *Change) error {
		if t.Email != c.Account.Email.Address || c.Account.Status != Active {
			return ErrTokenInvalid
		}
		now := a.time()
		firstProof := !c.Account.EmailVerified
		if firstProof {
			c.record(ctx, now, event.UserEmailVerified{Email: t.Email})
		}
		c.Account.PasswordProved, c.Account.EmailVerified = true, true
		c.revokeTokens(LinkResetPassword, LinkVerifyEmail, LinkChangeEmail)
		if firstProof {
			// Another person may have created the account with this address and added a
			// passkey to sign in with. A TOTP app does not give access.
			if err := c.removeFactors(ctx, now, func(f Factor) bool { return f.Kind == factor.KindPasskey }); err != nil {
				return err
			}
		}
		replaced, err = c.replacePassword(ctx, now, methodReset, to)
		return err
	})
	return replaced, err
}
