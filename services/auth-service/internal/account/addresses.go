package account

import (
	"context"
	"errors"

	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/pkg/problem"
	"github.com/headgate/headgate/pkg/token"
)

// ChangeEmail asks the owner of an address to confirm that the caller's account
// shall have it; until then nothing changes. It fails with a validation problem,
// ErrCurrentPassword, ErrTooManyMails, password.ErrBusy, and with ErrEmailTaken
// unless sign-ups don't tell either who has an account.
func (a *Accounts) ChangeEmail(ctx context.Context, caller token.Identity, newEmail, current string) error {
	email, fault := parseEmail("newEmail", newEmail)
	if err := faults(fault); err != nil {
		return err
	}
	owner, err := a.confirmPassword(ctx, caller, "currentPassword", current)
	if err != nil {
		return err
	}
	if email.Key == owner.Email.Key {
		return problem.Validation(problem.Field{Field: "newEmail", Code: "unchanged", Message: "This is your address already."})
	}
	_, err = a.store.AccountByEmail(ctx, email.Key)
	taken := err == nil
	if err != nil && !errors.Is(err, ErrNotFound) {
		return err
	}
	if taken && a.mode != SignUpStrict {
		return ErrEmailTaken
	}
	return a.updateOwnSensitive(ctx, caller, owner, func(c *Change) error {
		ok, err := c.AllowMail(ctx, mailRequested, email)
		if err != nil {
			return err
		}
		if !ok {
			return ErrTooManyMails
		}
		c.record(ctx, a.time(), event.UserEmailChangeRequested{Email: email.Address})
		if !taken {
			a.issueLink(ctx, c, changeLink, email)
		}
		return nil
	})
}

// ConfirmEmail uses the secret of the link that went to a new address. The old
// address gets a link that takes it back. It fails with ErrTokenInvalid,
// ErrTokenExpired or ErrEmailTaken.
func (a *Accounts) ConfirmEmail(ctx context.Context, secret string) (Account, error) {
	return a.useLink(ctx, LinkChangeEmail, secret, func(ctx context.Context, t OneTimeToken, c *Change) error {
		to, fault := ParseEmail(t.Email)
		if fault != nil || c.Account.Status != Active {
			return ErrTokenInvalid
		}
		now, before, proved := a.time(), c.Account.Email, c.Account.EmailVerified
		c.setEmail(now, to)
		c.record(ctx, now, event.UserEmailChanged{Email: to.Address, PreviousEmail: before.Address})
		kind := revertLink
		if !proved {
			kind = revertUnprovedLink
		}
		a.issueLink(ctx, c, kind, before)
		return nil
	})
}

// RevertEmail uses the secret of the link that went to an old address: the
// account has it again, its sessions end, and as whoever changed it knew the
// password, a link for a new one is mailed. Factors that are not much older than
// the change, and the links that went to later addresses, are gone with it. It fails with ErrTokenInvalid,
// ErrTokenExpired or ErrEmailTaken.
func (a *Accounts) RevertEmail(ctx context.Context, secret string) (Account, error) {
	return a.useLink(ctx, LinkRevertEmail, secret, func(ctx context.Context, t OneTimeToken, c *Change) error {
		to, fault := ParseEmail(t.Email)
		if fault != nil {
			return ErrTokenInvalid
		}
		now, before := a.time(), c.Account.Email
		c.setEmail(now, to)
		c.RevokeTokens = append(c.RevokeTokens, TokenRevocation{Purpose: LinkRevertEmail, CreatedAfter: t.CreatedAt})
		c.Account.PasswordHash = "" // It fits no password.
		c.revokeSessions(ctx, now, reasonEmailReverted)
		c.record(ctx, now, event.UserEmailChanged{Email: to.Address, PreviousEmail: before.Address, Reverted: true})
		a.issueLink(ctx, c, resetLink, to)
		c.RecoveryCodes = nil
		return a.removeEach(ctx, c, func(f Factor) bool { return !f.CreatedAt.Before(t.CreatedAt.Add(-revertLife)) })
	})
}
