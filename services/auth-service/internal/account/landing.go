package account

import (
	"context"
	"errors"
)

// Landing is what a link leads to that was mailed.
type Landing string

// The landings.
const (
	ToVerify Landing = purposeVerifyEmail
	ToReset  Landing = purposeReset
	ToChange Landing = purposeChangeEmail
	ToRevert Landing = purposeRevertEmail
)

// MailedTo returns the address that a link was mailed to. It fails as using the
// link would: with ErrTokenInvalid, ErrTokenExpired or ErrEmailTaken. It uses and
// locks nothing, so the link may be used up a moment later.
func (a *Accounts) MailedTo(ctx context.Context, to Landing, secret string) (string, error) {
	t, owner, err := a.store.TokenOwner(ctx, string(to), hashSecret(secret))
	if err != nil {
		return "", err
	}
	onAddress := to == ToVerify || to == ToReset // For these nothing but the account's own address will do.
	needsActive := to == ToReset || to == ToChange
	switch {
	case !a.time().Before(t.ExpiresAt):
		return "", ErrTokenExpired
	case onAddress && t.Email != owner.Email.Address, needsActive && owner.Status != Active:
		return "", ErrTokenInvalid
	case !onAddress:
		if err := a.free(ctx, t); err != nil {
			return "", err
		}
	}
	return t.Email, nil
}

// free fails if the owner of a token cannot get the address that it was mailed to.
func (a *Accounts) free(ctx context.Context, t OneTimeToken) error {
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
