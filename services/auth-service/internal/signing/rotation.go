package signing

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/headgate/headgate/pkg/event"
)

// The failures of retiring a key.
var (
	ErrUnknownKey = errors.New("unknown key")
	ErrKeyInUse   = errors.New("unexpired tokens may be signed with this key")
	ErrKeyActive  = errors.New("the active key cannot be retired; rotate first")
)

// Rotate adds a scheduled key that becomes active after delay. Verifiers know the
// key by then if delay is at least ActivationDelay; with a shorter delay they may
// refuse valid tokens for a moment.
func (r *Keyring) Rotate(ctx context.Context, algorithm string, delay time.Duration) (Key, error) {
	now := r.now()
	key, err := newKey(algorithm, now, now.Add(delay))
	if err != nil {
		return Key{}, err
	}
	err = r.store.Change(ctx, func([]Key) (Change, error) {
		return Change{Add: &key, Events: []event.Event{event.New(ctx, now, "", event.SigningKeyRotated{
			KeyID: key.ID, Algorithm: algorithm, ActivatesAt: key.ActivatesAt,
		})}}, nil
	})
	if err != nil {
		return Key{}, err
	}
	return key, r.load(ctx)
}

// Retire removes a key that no valid token can be signed with: a scheduled one, or
// one that stopped signing more than a token lifetime ago. It fails with
// ErrUnknownKey, ErrKeyActive, or ErrKeyInUse while a token of tokenLifetime can
// still be valid.
func (r *Keyring) Retire(ctx context.Context, id string, tokenLifetime time.Duration) error {
	return r.retire(ctx, event.SigningKeyRetired{KeyID: id}, func(keys keySet, i int, now time.Time) error {
		if keys.state(i, now) != Retiring {
			return nil
		}
		// The replaced key may have signed until every process had loaded its successor.
		if safe := keys[i-1].ActivatesAt.Add(tokenLifetime + reloadInterval); now.Before(safe) {
			return fmt.Errorf("%w; it can be retired from %s on", ErrKeyInUse, safe.Format(time.RFC3339))
		}
		return nil
	})
}

// ForceRetire removes a key even if valid tokens are signed with it. This process
// refuses those tokens at once, other processes within a minute. It fails with
// ErrUnknownKey or ErrKeyActive.
func (r *Keyring) ForceRetire(ctx context.Context, id string) error {
	return r.retire(ctx, event.SigningKeyRetired{KeyID: id, Forced: true}, func(keySet, int, time.Time) error { return nil })
}

// retire removes the key that retired names, if check allows it.
func (r *Keyring) retire(ctx context.Context, retired event.SigningKeyRetired, check func(keys keySet, i int, now time.Time) error) error {
	now := r.now()
	err := r.store.Change(ctx, func(stored []Key) (Change, error) {
		keys := keySet(stored)
		i := keys.index(retired.KeyID)
		switch keys.state(i, now) {
		case Retired:
			return Change{}, ErrUnknownKey
		case Active:
			return Change{}, ErrKeyActive
		case Scheduled, Retiring:
		}
		if err := check(keys, i, now); err != nil {
			return Change{}, err
		}
		return Change{Remove: retired.KeyID, Events: []event.Event{event.New(ctx, now, "", retired)}}, nil
	})
	if err != nil {
		return err
	}
	return r.load(ctx)
}
