package account

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"

	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/pkg/problem"
	"github.com/headgate/headgate/pkg/token"
	"github.com/headgate/headgate/services/auth-service/internal/factor"
)

// factorReader is what the list of factors reads.
type factorReader interface {
	// Factors returns the confirmed factors of an account, oldest first, and how many
	// recovery codes it has left.
	Factors(ctx context.Context, accountID string) ([]Factor, int, error)
}

// Factor is a TOTP app or a passkey of an account. Package factor checks them.
type Factor struct {
	ID          string
	AccountID   string
	Kind        string // see package factor
	Name        string
	Secret      string // of a TOTP app, its sealed secret; of a passkey, its credential
	Lookup      string // of a passkey, the id of its credential
	LastStep    int64  // of a TOTP app, the last time step that was used
	Proved      bool   // whether a person added it who has proved the address
	CreatedAt   time.Time
	ConfirmedAt time.Time // zero until it has been used once
	LastUsedAt  time.Time // zero until it is used for a login
}

// ErrFactorNotFound says that the account has no such factor.
var ErrFactorNotFound = problem.New(problem.NotFound, "factor_not_found", "Factor not found.")

func newFactor(owner Account, kind, name string, now time.Time) (Factor, error) {
	id, err := uuid.NewV7()
	if err != nil {
		return Factor{}, fmt.Errorf("make factor id: %w", err)
	}
	return Factor{ID: id.String(), AccountID: owner.ID, Kind: kind, Name: name, CreatedAt: now}, nil
}

// Factors returns the caller's confirmed factors, oldest first, and how many
// recovery codes are left.
func (a *Accounts) Factors(ctx context.Context, caller token.Identity) ([]Factor, int, error) {
	return a.store.Factors(ctx, caller.UserID)
}

// FactorRemoval removes a factor.
type FactorRemoval struct {
	Confirmation

	Kind string // of the factor; see package factor
	ID   string
}

// RemoveFactor removes one of the caller's factors. It fails with ErrCurrentPassword,
// ErrFactorNotFound, ErrLastPasskey, ErrConflict or ErrReauthRequired, and as privileged does.
func (a *Accounts) RemoveFactor(ctx context.Context, caller token.Identity, in FactorRemoval) error {
	by, err := a.confirm(ctx, caller, "password", in.Confirmation)
	if err != nil {
		return err
	}
	return a.updateOwnSensitive(ctx, caller, sessionOf(caller), by, func(c *Change) error {
		i := slices.IndexFunc(c.Factors, func(f Factor) bool { return f.ID == in.ID && f.Kind == in.Kind })
		if i < 0 {
			return ErrFactorNotFound
		}
		if err := a.privileged(c, by); err != nil {
			return err
		}
		if in.Kind == factor.KindPasskey && c.Account.PasswordHash == "" && !c.hasPasskeyBesides(in.ID) {
			return ErrLastPasskey
		}
		return c.removeFactor(ctx, a.time(), c.Factors[i])
	})
}

// removeFactor removes a factor and notifies the owner, unless it was never
// confirmed.
func (c *Change) removeFactor(ctx context.Context, now time.Time, removed Factor) error {
	c.detachFactor(now, removed)
	if removed.ConfirmedAt.IsZero() {
		return nil
	}
	return c.notify(ctx, now, c.removedFactor(removed))
}

func (c *Change) removedFactor(f Factor) event.MFARemoved {
	return event.MFARemoved{FactorID: f.ID, Kind: f.Kind, Email: c.Account.Email.Address, Name: c.Account.Name}
}

// detachFactor removes a factor without a trace.
func (c *Change) detachFactor(now time.Time, removed Factor) {
	c.Factors = slices.DeleteFunc(c.Factors, func(f Factor) bool { return f.ID == removed.ID })
	c.Account.UpdatedAt = now
	c.Account.MFAEnabled = slices.ContainsFunc(c.Factors, func(f Factor) bool { return f.Kind == factor.KindTOTP && !f.ConfirmedAt.IsZero() })
	if !c.Account.MFAEnabled {
		c.RecoveryCodes = nil
	}
}

// removeFactors removes the factors that match.
func (c *Change) removeFactors(ctx context.Context, now time.Time, match func(Factor) bool) error {
	for _, f := range slices.Clone(c.Factors) {
		if !match(f) {
			continue
		}
		if err := c.removeFactor(ctx, now, f); err != nil {
			return err
		}
	}
	return nil
}
