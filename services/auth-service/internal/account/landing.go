package account

import (
	"context"
	"errors"
)

// CheckLink returns the address that a link was mailed to. It fails as using the
// link would: with ErrTokenInvalid, ErrTokenExpired or ErrEmailTaken. It uses and
// locks nothing, so the link may be used up a moment later.
func (a *Accounts) CheckLink(ctx context.Context, purpose LinkPurpose, secret string) (string, error) {
	t, owner, err := a.store.TokenOwner(ctx, purpose, hashSecret(secret))
	if err != nil {
		return "", err
	}
	onAddress := purpose == LinkVerifyEmail || purpose == LinkResetPassword // For these nothing but the account's own address will do.
	needsActive := purpose == LinkResetPassword || purpose == LinkChangeEmail
	switch {
	case !a.time().Before(t.ExpiresAt):
		return "", ErrTokenExpired
	case onAddress && t.Email != owner.Email.Address, needsActive && owner.Status != Active:
		return "", ErrTokenInvalid
	case !onAddress:
		if err := a.checkAvailable(ctx, t); err != nil {
			return "", err
		}
	}
	return t.Email, nil
}

// checkAvailable fails if the owner of a token cannot get the address that it was mailed to.
func (a *Accounts) checkAvailable(ctx context.Context, t OneTimeToken) error {
	email, fault := ParseEmail(t.Email)
	if fault != nil {
		return ErrTokenInvalid
	}
	switch other, err := a.store.AccountByEmail(ctx, email.Key); {
	case errors.Is(err, ErrNotFound):
		return nil
	case err != nil:
		return err
	case other.ID != t.AccountID:
		return ErrEmailTaken
	}
	return nil
}

// PasswordMinLength returns how many characters a new password must have.
func (a *Accounts) PasswordMinLength() int { return a.minLength }
