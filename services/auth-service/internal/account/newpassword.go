package account

import (
	"context"
	"fmt"
	"unicode/utf8"

	"github.com/headgate/headgate/pkg/problem"
	"github.com/headgate/headgate/services/auth-service/internal/password"
)

// PasswordMinLength returns how many characters a new password must have.
func (a *Accounts) PasswordMinLength() int { return a.minLength }

// newPassword validates a new password and returns its normalized form.
func (a *Accounts) newPassword(field, text string) (string, *problem.Field) {
	secret, passwordErr := password.Normalize(field, text)
	switch {
	case passwordErr != nil:
		return "", passwordErr
	case utf8.RuneCountInString(secret) < a.minLength:
		return "", &problem.Field{
			Field: field, Code: "too_short",
			Message: fmt.Sprintf("Password must have at least %d characters.", a.minLength),
		}
	case len(secret) > a.hasher.MaxBytes():
		return "", &problem.Field{
			Field: field, Code: "too_long",
			Message: fmt.Sprintf("Password must not be longer than %d bytes.", a.hasher.MaxBytes()),
		}
	}
	return secret, nil
}

// hashNew returns the hash of a new password for owner. It fails with ErrWeakPassword,
// password.ErrBusy or password.ErrAccountBusy.
func (a *Accounts) hashNew(ctx context.Context, owner Account, secret string) (string, error) {
	if password.Weak(secret, owner.Email.Address, localPart(owner.Email), owner.Name) {
		return "", ErrWeakPassword
	}
	return a.hasher.For(owner.ID).Hash(ctx, secret)
}
