package signing

import (
	"context"
	"crypto"
	"errors"
	"sync"
	"time"

	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/pkg/token"
)

// Store keeps signing keys, the one activated last first.
type Store interface {
	// Load returns all keys.
	Load(ctx context.Context) ([]Key, error)
	// Change locks the keys, passes them to decide, and stores the change that it
	// returns together with its events. It stores nothing if decide fails.
	Change(ctx context.Context, decide func(keys []Key) (Change, error)) error
}

// Change is a change to the stored keys.
type Change struct {
	Add    *Key
	Remove string // an id, or empty
	Events []event.Event
}

// Keyring holds the signing keys in memory. It is safe for concurrent use.
type Keyring struct {
	store Store
	now   func() time.Time

	mu     sync.RWMutex
	keys   keySet
	jwks   []byte
	loaded time.Time
}

const (
	// ActivationDelay is how long a key is published before it signs. It is longer
	// than any verifier caches the key set.
	ActivationDelay = 2 * time.Minute
	// reloadInterval bounds how long a process works with outdated keys.
	reloadInterval = 10 * time.Second
	// unknownKeyReload limits the queries that made-up key ids can cause.
	unknownKeyReload = time.Second
)

// OpenKeyring loads the keys and creates the first one if there is none.
func OpenKeyring(ctx context.Context, store Store, now func() time.Time) (*Keyring, error) {
	r := &Keyring{store: store, now: now}
	err := store.Change(ctx, func(keys []Key) (Change, error) {
		if len(keys) > 0 {
			return Change{}, nil
		}
		first, err := newKey(ES256, now(), now())
		return Change{Add: &first}, err
	})
	if err != nil {
		return nil, err
	}
	return r, r.load(ctx)
}

// Run reloads the keys until ctx ends. If they cannot be loaded, the keyring keeps
// the keys that it has.
func (r *Keyring) Run(ctx context.Context) error {
	reload := time.NewTicker(reloadInterval)
	defer reload.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-reload.C:
			_ = r.load(ctx) // The readiness check reports that Postgres is unavailable.
		}
	}
}

func (r *Keyring) load(ctx context.Context) error {
	keys, err := r.store.Load(ctx)
	if err != nil {
		return err
	}
	if len(keys) == 0 {
		return errors.New("no signing key in the database")
	}
	public := map[string]crypto.PublicKey{}
	for _, k := range keys {
		public[k.ID] = k.Signer.Public()
	}
	jwks, err := token.MarshalJWKS(public)
	if err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.keys, r.jwks, r.loaded = keys, jwks, r.now()
	return nil
}

// JWKS returns the public keys as a JWK set, scheduled keys included.
func (r *Keyring) JWKS() []byte {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.jwks
}

// Key implements token.Keys.
func (r *Keyring) Key(ctx context.Context, kid string) (crypto.PublicKey, error) {
	if key, ok := r.find(kid); ok {
		return key, nil
	}
	// After an immediate rotation, another replica may sign with a key that this
	// one has not loaded yet.
	r.mu.Lock()
	tooSoon := r.now().Sub(r.loaded) < unknownKeyReload
	r.loaded = r.now()
	r.mu.Unlock()
	if !tooSoon && r.load(ctx) == nil {
		if key, ok := r.find(kid); ok {
			return key, nil
		}
	}
	return nil, token.ErrUnknownKey
}

func (r *Keyring) find(kid string) (crypto.PublicKey, bool) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	if i := r.keys.index(kid); i >= 0 {
		return r.keys[i].Signer.Public(), true
	}
	return nil, false
}

// active returns the key that signs now.
func (r *Keyring) active() Key {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.keys[r.keys.active(r.now())]
}

// KeyInfo is a key with its state.
type KeyInfo struct {
	Key

	State      State
	ReplacedAt time.Time // when it stopped signing; zero unless it is retiring
}

// List returns the keys with their states, the one activated last first.
func (r *Keyring) List() []KeyInfo {
	r.mu.RLock()
	defer r.mu.RUnlock()
	list := make([]KeyInfo, 0, len(r.keys))
	for i, key := range r.keys {
		info := KeyInfo{Key: key, State: r.keys.state(i, r.now())}
		if info.State == Retiring {
			info.ReplacedAt = r.keys[i-1].ActivatesAt
		}
		list = append(list, info)
	}
	return list
}
