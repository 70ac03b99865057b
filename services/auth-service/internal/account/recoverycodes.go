package account

import (
	"context"

	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/pkg/token"
	"github.com/headgate/headgate/services/auth-service/internal/factor"
)

// NewRecoveryCodes replaces the caller's recovery codes and returns the new ones,
// which cannot be shown again. It fails as addToOwn does, and with ErrFactorNotFound if the
// account has no second factor.
func (a *Accounts) NewRecoveryCodes(ctx context.Context, caller token.Identity, with Confirmation) ([]string, error) {
	var codes []string
	err := a.addToOwn(ctx, caller, sessionOf(caller), with, func(c *Change, _ *Session) error {
		if !c.Account.MFAEnabled {
			return ErrFactorNotFound
		}
		codes = c.newRecoveryCodes()
		return c.notify(ctx, a.time(), event.MFARecoveryCodesMade{Email: c.Account.Email.Address, Name: c.Account.Name})
	})
	return codes, err
}

// newRecoveryCodes replaces the recovery codes. The caller records it.
func (c *Change) newRecoveryCodes() []string {
	codes := factor.NewRecoveryCodes()
	c.RecoveryCodes = nil
	for _, code := range codes {
		c.RecoveryCodes = append(c.RecoveryCodes, factor.HashRecoveryCode(code))
	}
	return codes
}
