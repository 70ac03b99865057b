package account

import (
	"context"
	"encoding/json"
	"errors"
)

// personalDataReader reads everything about one account.
type personalDataReader interface {
	// PersonalData returns everything about an account that is no secret, as a JSON object, or
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
