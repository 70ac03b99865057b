package account

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/pkg/token"
)

// personalDataReader reads everything about one account.
type personalDataReader interface {
	// PersonalData returns everything about an account except secrets, as a JSON object, or
	// ErrNotFound.
	PersonalData(ctx context.Context, id string) (json.RawMessage, error)
}

// PersonalData returns everything that this service holds about the owner of an account, without
// secrets and their hashes, as a JSON object. It fails with ErrSessionRevoked if the account
// was deleted.
func (a *Accounts) PersonalData(ctx context.Context, id string) (json.RawMessage, error) {
	data, err := a.store.PersonalData(ctx, id)
	if errors.Is(err, ErrNotFound) {
		return nil, ErrSessionRevoked
	}
	return data, err
}

// MailExportLink mails a link with a secret that leads to an export of the caller's data until it
// expires. The address must be verified: everybody who reads the mail can download the data. It
// fails with ErrEmailNotVerified or ErrSessionRevoked.
func (a *Accounts) MailExportLink(ctx context.Context, caller token.Identity, secret string, expires time.Time) error {
	return a.updateOwn(ctx, caller, sessionOf(caller), func(c *Change, _ *Session) error {
		if !c.Account.EmailVerified {
			return ErrEmailNotVerified
		}
		c.record(ctx, a.time(), event.UserExportLinkIssued{
			Email: c.Account.Email.Address, Name: c.Account.Name, ExpiresAt: expires.UTC(),
			Token: a.links.Seal(secret, event.LinkContext(event.UserExportLinkIssued{}, c.Account.ID)),
		})
		return nil
	})
}
