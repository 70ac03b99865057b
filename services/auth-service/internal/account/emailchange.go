package account

import (
	"context"
	"errors"

	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/pkg/problem"
	"github.com/headgate/headgate/pkg/token"
)

// ChangeEmail mails a confirmation link to the new address of the caller's account.
// Nothing changes until the link is used. It fails with a validation problem,
// ErrCurrentPassword, ErrReauthRequired, ErrConflict, ErrTooManyMails,
// password.ErrBusy, as privileged does, and with ErrEmailTaken unless sign-ups hide it as well.
func (a *Accounts) ChangeEmail(ctx context.Context, caller token.Identity, newEmail string, with Confirmation) error {
	email, emailErr := parseEmail("newEmail", newEmail)
	if err := validate(emailErr); err != nil {
		return err
	}
	by, err := a.confirm(ctx, caller, "currentPassword", with)
	if err != nil {
		return err
	}
	_, err = a.store.AccountByEmail(ctx, email.Key)
	taken := err == nil
	if err != nil && !errors.Is(err, ErrNotFound) {
		return err
	}
	var refused error
	err = a.updateOwnSensitive(ctx, caller, sessionOf(caller), by, func(c *Change) error {
		if err := a.privileged(c, by); err != nil {
			return err
		}
		if email.Key == c.Account.Email.Key {
			return problem.Validation(problem.Field{Field: "newEmail", Code: "unchanged", Message: "This is already your email address."})
		}
		ok, err := c.AllowMail(ctx, mailChange, email)
		if err != nil {
			return err
		}
		if !ok {
			return ErrTooManyMails
		}
		if taken && a.mode != SignUpStrict {
			refused = ErrEmailTaken // The answer is charged, so the change must be stored.
			return nil
		}
		c.record(ctx, a.time(), event.UserEmailChangeRequested{Email: email.Address})
		if taken {
			// As a new link would, so that the earlier link's state reveals nothing.
			c.revokeTokens(LinkChangeEmail)
			return nil
		}
		a.issueLink(ctx, c, changeLink, email)
		return nil
	})
	return errors.Join(err, refused)
}

// ConfirmEmail uses the link that was mailed to a new address, which the account
// then has. The old address gets a link that reverts the change. The new address may be that
// of another person, who only clicked and would then share the account with the person who
// asked for the change. So without a proof the click must come from a network in which the
// account has a live session, and nothing that the account has is proved then. It fails with
// ErrTokenInvalid, ErrTokenExpired, ErrEmailTaken, a validation problem, ErrCurrentPassword,
// ErrTooManyAttempts, ErrConflict or password.ErrBusy, and with ErrProofRequired unless the
// link is enough. The link is not used then.
func (a *Accounts) ConfirmEmail(ctx context.Context, secret string, with Possession) (Account, error) {
	checked, err := a.checkPossession(ctx, LinkChangeEmail, secret, with)
	if err != nil {
		return Account{}, err
	}
	return a.useLink(ctx, LinkChangeEmail, secret, func(ctx context.Context, t OneTimeToken, c *Change) error {
		to, emailErr := ParseEmail(t.Email)
		if emailErr != nil || c.Account.Status != Active {
			return ErrTokenInvalid
		}
		shown, err := a.plausible(ctx, checked, c)
		if err != nil {
			return err
		}
		c.setProved(shown)
		now, before, verified := a.time(), c.Account.Email, c.Account.EmailVerified
		c.setEmail(now, to)
		c.record(ctx, now, event.UserEmailChanged{Email: to.Address, PreviousEmail: before.Address, AccountVersion: c.Account.Version})
		kind := revertLink
		if !verified {
			kind = revertUnverifiedLink
		}
		a.issueLink(ctx, c, kind, before)
		return nil
	})
}

// plausible reports whether the person who clicked has shown that the account is theirs. It
// fails with ErrProofRequired unless they have, or clicked in a network in which the account
// has a live session, or a click is enough everywhere, and with ErrConflict as shown does.
func (a *Accounts) plausible(ctx context.Context, checked checkedPossession, c *Change) (shown bool, err error) {
	shown, err = checked.shown(c)
	if err == nil && !shown && a.verification != VerifyByLink && !c.usedFrom(event.OriginFrom(ctx).Network(), a.time()) {
		err = ErrProofRequired
	}
	return shown, err
}

// RevertEmail uses the link that was mailed to an old address, and the account uses
// that address again. The person who changed the address knew the password, so the
// password stops working, all sessions end, and a reset link is mailed. Unproved factors,
// those added since shortly before the change, and links mailed to later addresses, are
// removed: they may be a thief's. If nobody had proved the old address, a stranger may read
// its mail, because it was mistyped: then the click must be as plausible as that of
// ConfirmEmail, with which it shares its errors.
func (a *Accounts) RevertEmail(ctx context.Context, secret string, with Possession) (Account, error) {
	checked, err := a.checkPossession(ctx, LinkRevertEmail, secret, with)
	if err != nil {
		return Account{}, err
	}
	return a.useLink(ctx, LinkRevertEmail, secret, func(ctx context.Context, t OneTimeToken, c *Change) error {
		to, emailErr := ParseEmail(t.Email)
		if emailErr != nil {
			return ErrTokenInvalid
		}
		if t.Unproved {
			if _, err := a.plausible(ctx, checked, c); err != nil {
				return err
			}
		}
		now, before := a.time(), c.Account.Email
		c.setEmail(now, to)
		c.RevokeTokens = append(c.RevokeTokens, TokenRevocation{Purpose: LinkRevertEmail, CreatedAfter: t.CreatedAt})
		c.Account.PasswordHash, c.Account.PasswordProved = "", false // No password matches it.
		c.revokeSessions(ctx, now, reasonEmailReverted)
		c.record(ctx, now, event.UserEmailChanged{Email: to.Address, PreviousEmail: before.Address, Reverted: true, AccountVersion: c.Account.Version})
		a.issueLink(ctx, c, resetLink, to)
		c.RecoveryCodes = nil
		return c.removeFactors(ctx, now, func(f Factor) bool { return unproved(f) || !f.CreatedAt.Before(t.CreatedAt.Add(-revertLifetime)) })
	})
}
