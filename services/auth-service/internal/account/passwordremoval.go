package account

import (
	"context"
	"slices"

	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/pkg/problem"
	"github.com/headgate/headgate/pkg/token"
	"github.com/headgate/headgate/services/auth-service/internal/factor"
)

// The failures of accounts that sign in with passkeys only.
var (
	ErrPasskeyRequired = problem.New(problem.Conflict, "passkey_required", "Add a passkey first, in a session of a person who has confirmed the email address.")
	ErrLastPasskey     = problem.New(problem.Conflict, "last_passkey", "This is the last passkey of an account without a password. Choose a password first, with “Forgot password”, or add another passkey.")
)

// RemovePassword switches the password of the caller's account off: only passkeys sign in
// from then on. A reset by mail gives it a password again. It fails as addToOwn does, and
// with ErrPasskeyRequired if no passkey would be left that proves the address.
func (a *Accounts) RemovePassword(ctx context.Context, caller token.Identity, with Confirmation) error {
	return a.addToOwn(ctx, caller, sessionOf(caller), with, func(c *Change, _ *Session) error {
		if c.Account.PasswordHash == "" {
			return nil
		}
		if !c.hasPasskeyBesides("") {
			return ErrPasskeyRequired
		}
		now := a.time()
		c.Account.PasswordHash, c.Account.PasswordProved, c.Account.UpdatedAt = "", false, now // No password matches it.
		c.RevokeChallenges = true
		return c.notify(ctx, now, event.UserPasswordRemoved{Email: c.Account.Email.Address, Name: c.Account.Name})
	})
}

// hasPasskeyBesides reports whether a person who has proved the address can sign in with
// another passkey than the one with the id.
func (c *Change) hasPasskeyBesides(id string) bool {
	return slices.ContainsFunc(c.Factors, func(f Factor) bool { return f.Kind == factor.KindPasskey && f.Proved && f.ID != id })
}
