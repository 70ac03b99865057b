package account

import (
	"context"

	"github.com/headgate/headgate/pkg/event"
)

// ForgotPassword requests a mail with a link to choose a new password. Only the mail
// tells whether the address has an account. It fails with a validation problem only.
func (a *Accounts) ForgotPassword(ctx context.Context, email string) error {
	return a.requestLink(ctx, LinkResetPassword, email)
}

// ResetPassword uses a reset link. All sessions end and none begins: the user must
// sign in with the new password. Unproved factors are removed; a proved TOTP factor stays,
// because a reset must not bypass it. It fails with a validation problem, ErrWeakPassword,
// ErrTokenInvalid, ErrTokenExpired or password.ErrBusy.
func (a *Accounts) ResetPassword(ctx context.Context, secret string, to NewPassword) (Replaced, error) {
	_, replaced, err := a.choosePassword(ctx, LinkResetPassword, secret, to)
	return replaced, err
}

// choosePassword is ResetPassword with a link of a purpose. It returns the changed account
// as well.
func (a *Accounts) choosePassword(ctx context.Context, purpose LinkPurpose, secret string, to NewPassword) (Account, Replaced, error) {
	chosen, passwordErr := a.newPassword("newPassword", to.Password)
	if err := validate(passwordErr); err != nil {
		return Account{}, Replaced{}, err
	}
	// Hash before the account is locked, and only if the link is valid.
	_, owner, err := a.checkLink(ctx, purpose, secret)
	if err != nil {
		return Account{}, Replaced{}, err
	}
	if to.Password, err = a.hashNew(ctx, owner, chosen); err != nil {
		return Account{}, Replaced{}, err
	}
	var replaced Replaced
	changed, err := a.useLink(ctx, purpose, secret, func(ctx context.Context, t OneTimeToken, c *Change) error {
		firstProof := !c.Account.EmailVerified
		if t.Email != c.Account.Email.Address || c.Account.Status != Active || purpose == LinkVerifyEmail && !firstProof {
			return ErrTokenInvalid
		}
		now := a.time()
		if firstProof {
			c.record(ctx, now, event.UserEmailVerified{Email: t.Email})
		}
		c.Account.PasswordProved, c.Account.EmailVerified = true, true
		c.revokeTokens(LinkResetPassword, LinkVerifyEmail, LinkChangeEmail)
		if replaced, err = c.replacePassword(ctx, now, methodReset, to); err != nil {
			return err
		}
		return c.removeFactors(ctx, now, unproved)
	})
	return changed, replaced, err
}
