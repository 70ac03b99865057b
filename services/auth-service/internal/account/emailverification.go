package account

import (
	"context"

	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/pkg/token"
)

// ResendVerification requests another verification mail. Only the mail tells whether
// the address has an account. It fails with a validation problem only.
func (a *Accounts) ResendVerification(ctx context.Context, email string) error {
	return a.requestLink(ctx, LinkVerifyEmail, email)
}

// VerifyEmail uses a verification link: once, before it expires, and only while the
// account still has the address that it was mailed to. With a proof, everything that the
// account has is proved. It fails with ErrTokenInvalid, ErrTokenExpired, a validation
// problem, ErrCurrentPassword, ErrTooManyAttempts, ErrResetRequired, ErrConflict or
// password.ErrBusy, and without a proof with ErrProofRequired unless the link is enough. The
// link is not used then.
func (a *Accounts) VerifyEmail(ctx context.Context, secret string, with Possession) (Account, error) {
	checked, err := a.checkPossession(ctx, LinkVerifyEmail, secret, with)
	if err != nil {
		return Account{}, err
	}
	return a.useLink(ctx, LinkVerifyEmail, secret, func(ctx context.Context, t OneTimeToken, c *Change) error {
		if t.Email != c.Account.Email.Address {
			return ErrTokenInvalid
		}
		switch shown, err := checked.shown(c); {
		case err != nil:
			return err
		case shown:
			c.setProved(true)
		case a.verification != VerifyByLink:
			return ErrProofRequired
		}
		c.Account.EmailVerified, c.Account.UpdatedAt = true, a.time()
		c.record(ctx, c.Account.UpdatedAt, event.UserEmailVerified{Email: t.Email})
		return nil
	})
}

// TakeOver gives the account of a verification link to the person who reads the mail, with
// a new password: everything that another person may have added to it is removed, and its
// sessions end. It fails as ResetPassword does, and with ErrTokenInvalid if the address
// was verified before.
func (a *Accounts) TakeOver(ctx context.Context, secret, next string) (Account, error) {
	owner, _, err := a.choosePassword(ctx, LinkVerifyEmail, secret, NewPassword{Password: next, RemovePasskeys: true})
	return owner, err
}

// RejectSignUp deletes the account of a verification link, because the person who reads
// the mail did not make it. It fails with ErrTokenExpired, and with ErrTokenInvalid also
// unless the account is unclaimed.
func (a *Accounts) RejectSignUp(ctx context.Context, secret string) error {
	_, err := a.useLink(ctx, LinkVerifyEmail, secret, func(ctx context.Context, t OneTimeToken, c *Change) error {
		if t.Email != c.Account.Email.Address || !c.Account.unclaimed() {
			return ErrTokenInvalid
		}
		c.deleteAccount(ctx, a.time(), deletedRejected)
		return nil
	})
	return err
}

// unclaimed reports whether nobody has proved the address and no administrator has
// decided about the account, so that the address may be freed. A deletion would let a
// disabled person sign up again.
func (a Account) unclaimed() bool {
	return !a.EmailVerified && a.Status == Active && a.Role == token.RoleUser
}

// Verification returns what a verification link must come with.
func (a *Accounts) Verification() Verification { return a.verification }

// mustVerify reports whether accounts cannot sign in before their address is verified.
func (a *Accounts) mustVerify() bool { return a.mode == SignUpStrict || a.requireVerified }
