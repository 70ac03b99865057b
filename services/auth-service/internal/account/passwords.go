package account

import (
	"context"
	"fmt"
	"unicode/utf8"

	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/pkg/problem"
	"github.com/headgate/headgate/pkg/token"
	"github.com/headgate/headgate/services/auth-service/internal/factor"
	"github.com/headgate/headgate/services/auth-service/internal/password"
	"github.com/headgate/headgate/services/auth-service/internal/signing"
)

// newPassword checks a password that somebody chooses and returns it in the form
// that is hashed.
func (a *Accounts) newPassword(field, text string) (string, *problem.Field) {
	secret, fault := password.Normalize(field, text)
	switch {
	case fault != nil:
		return "", fault
	case utf8.RuneCountInString(secret) < a.minLength:
		return "", &problem.Field{
			Field: field, Code: "too_short",
			Message: fmt.Sprintf("The password must have at least %d characters.", a.minLength),
		}
	case len(secret) > a.hasher.MaxBytes():
		return "", &problem.Field{
			Field: field, Code: "too_long",
			Message: fmt.Sprintf("The password is longer than %d bytes.", a.hasher.MaxBytes()),
		}
	}
	return secret, nil
}

// hash returns the hash of a password that an account may have. It fails with
// ErrWeakPassword or password.ErrBusy.
func (a *Accounts) hash(ctx context.Context, owner Account, secret string) (string, error) {
	if password.Weak(secret, owner.Email.Address, localPart(owner.Email), owner.Name) {
		return "", ErrWeakPassword
	}
	return a.hasher.Hash(ctx, secret)
}

// ChangePassword gives the caller's account another password. Every session ends,
// also the one at hand, of which a thief may have the tokens as well; the caller
// gets a new one. It fails with a validation
// problem, ErrWeakPassword, ErrCurrentPassword or password.ErrBusy.
func (a *Accounts) ChangePassword(ctx context.Context, caller token.Identity, current, next string) (signing.Tokens, error) {
	secret, fault := a.newPassword("newPassword", next)
	if err := faults(fault); err != nil {
		return signing.Tokens{}, err
	}
	owner, err := a.confirmPassword(ctx, caller, "currentPassword", current)
	if err != nil {
		return signing.Tokens{}, err
	}
	hash, err := a.hash(ctx, owner, secret)
	if err != nil {
		return signing.Tokens{}, err
	}
	var tokens signing.Tokens
	err = a.updateOwnSensitive(ctx, caller, owner, func(c *Change) error {
		now := a.time()
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

// ResetPassword uses the secret of a reset link. Every session ends and none
// begins: whoever reads the mail must still sign in. It fails with a validation
// problem, ErrWeakPassword, ErrTokenInvalid, ErrTokenExpired or password.ErrBusy.
func (a *Accounts) ResetPassword(ctx context.Context, secret, next string) error {
	chosen, fault := a.newPassword("newPassword", next)
	if err := faults(fault); err != nil {
		return err
	}
	// Only who has a link makes us hash, and before anything is locked.
	_, owner, err := a.store.TokenOwner(ctx, LinkResetPassword, hashSecret(secret))
	if err != nil {
		return err
	}
	hash, err := a.hash(ctx, owner, chosen)
	if err != nil {
		return err
	}
	_, err = a.useLink(ctx, LinkResetPassword, secret, func(ctx context.Context, t OneTimeToken, c *Change) error {
		if t.Email != c.Account.Email.Address || c.Account.Status != Active {
			return ErrTokenInvalid
		}
		now := a.time()
		first := !c.Account.EmailVerified
		if first {
			c.record(ctx, now, event.UserEmailVerified{Email: t.Email})
		}
		c.Account.PasswordHash, c.Account.EmailVerified, c.Account.UpdatedAt = hash, true, now
		c.revokeTokens(LinkResetPassword, LinkVerifyEmail, LinkChangeEmail)
		c.revokeSessions(ctx, now, reasonPasswordReset)
		if first {
			// Whoever made the account may have been somebody else, and have left
			// themselves a way in. A second factor is none.
			if err := a.removeEach(ctx, c, func(f Factor) bool { return f.Kind == factor.KindPasskey }); err != nil {
				return err
			}
		}
		return c.notify(ctx, now, event.UserPasswordChanged{Method: "reset", Email: t.Email, Name: c.Account.Name})
	})
	return err
}
