package account

import (
	"context"

	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/pkg/token"
)

// firstAdminStore tells whether a first administrator is needed.
type firstAdminStore interface {
	// HasAdmin reports whether there is an administrator.
	HasAdmin(ctx context.Context) (bool, error)
}

// CreateAdmin creates an administrator with a verified address. It fails with a
// validation problem, ErrWeakPassword, ErrEmailTaken or password.ErrBusy.
func (a *Accounts) CreateAdmin(ctx context.Context, in SignUp) (Account, error) {
	account, secret, err := a.newAccount(in)
	if err != nil {
		return Account{}, err
	}
	account.Role, account.EmailVerified, account.PasswordProved = token.RoleAdmin, true, true
	if account.PasswordHash, err = a.hasher.Hash(ctx, secret); err != nil {
		return Account{}, err
	}
	ctx = event.WithActor(ctx, event.Actor{Type: "service"})
	err = a.store.CreateAccount(ctx, func(c *Change) error {
		c.Account, c.Events = account, []event.Event{signedUp(ctx, account)}
		return nil
	})
	if err != nil {
		return Account{}, err
	}
	return account, nil
}

// EnsureAdmin creates an administrator if there is none, and reports whether it did.
// Once there is one, the password in the environment has no effect.
func (a *Accounts) EnsureAdmin(ctx context.Context, in SignUp) (bool, error) {
	exists, err := a.store.HasAdmin(ctx)
	if err != nil || exists {
		return false, err
	}
	_, err = a.CreateAdmin(ctx, in)
	return err == nil, err
}
