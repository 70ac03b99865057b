package account

import (
	"context"

	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/pkg/token"
)

// CreateAdmin creates an administrator whose address counts as verified. It
// fails as Register does.
func (a *Accounts) CreateAdmin(ctx context.Context, in SignUp) (Account, error) {
	account, secret, err := a.prepare(in)
	if err != nil {
		return Account{}, err
	}
	account.Role, account.EmailVerified = token.RoleAdmin, true
	if account.PasswordHash, err = a.hasher.Hash(ctx, secret); err != nil {
		return Account{}, err
	}
	ctx = event.WithActor(ctx, event.Actor{Type: "service"})
	err = a.store.CreateAccount(ctx, func(c *Change) error {
		c.Account, c.Events = account, []event.Event{a.signedUp(ctx, account)}
		return nil
	})
	if err != nil {
		return Account{}, err
	}
	return account, nil
}

// EnsureAdmin creates the first administrator and reports whether it did. While
// there is one, it does nothing: the password in the environment is good once.
func (a *Accounts) EnsureAdmin(ctx context.Context, in SignUp) (bool, error) {
	exists, err := a.store.HasAdmin(ctx)
	if err != nil || exists {
		return false, err
	}
	_, err = a.CreateAdmin(ctx, in)
	return err == nil, err
}
