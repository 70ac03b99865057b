package account

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/pkg/token"
)

// SigningKey is a key that access tokens are signed with.
type SigningKey struct {
	ID          string
	Key         crypto.Signer
	CreatedAt   time.Time
	ActivatesAt time.Time // until then it is only published
}

// Algorithms of signing keys, by the names of JOSE.
const (
	ES256 = "ES256"
	EdDSA = "EdDSA"
)

// Algorithm returns the name of the key's algorithm.
func (k SigningKey) Algorithm() string {
	if _, ok := k.Key.Public().(ed25519.PublicKey); ok {
		return EdDSA
	}
	return ES256
}

// Keys keeps signing keys, those that were activated last first.
type Keys interface {
	Load(ctx context.Context) ([]SigningKey, error)
	// Change lets decide see the keys, and nobody change them meanwhile, and
	// stores what it returns with the events, unless it fails.
	Change(ctx context.Context, decide func(keys []SigningKey) (KeyChange, error)) error
}

// KeyChange is what becomes of the keys.
type KeyChange struct {
	Add    *SigningKey
	Remove string // an id, or empty
	Events []event.Event
}

// Keyring has the keys in memory. It is safe for concurrent use.
type Keyring struct {
	store Keys
	now   func() time.Time

	mu     sync.RWMutex
	keys   []SigningKey
	jwks   []byte
	loaded time.Time
}

const (
	// KeyNotice is how long a key is published before it signs. It is longer than
	// verifiers keep what they have fetched.
	KeyNotice = 2 * time.Minute
	// keyPoll is how late a process learns of a change; strangers who make up ids
	// can ask for one query in keyRetry.
	keyPoll  = 10 * time.Second
	keyRetry = time.Second
)

// The failures of changing keys.
var (
	ErrNoSuchKey = errors.New("there is no such key")
	ErrKeyInUse  = errors.New("tokens that are good may be signed with this key; -force retires it all the same")
)

// OpenKeyring loads the keys and makes the first one.
func OpenKeyring(ctx context.Context, store Keys, now func() time.Time) (*Keyring, error) {
	r := &Keyring{store: store, now: now}
	err := store.Change(ctx, func(keys []SigningKey) (KeyChange, error) {
		if len(keys) > 0 {
			return KeyChange{}, nil
		}
		first, err := newKey(ES256, now(), now())
		return KeyChange{Add: &first}, err
	})
	if err != nil {
		return nil, err
	}
	return r, r.load(ctx)
}

func newKey(algorithm string, now, activates time.Time) (SigningKey, error) {
	key := SigningKey{ID: uuid.NewString(), CreatedAt: now.UTC(), ActivatesAt: activates.UTC()}
	var err error
	switch algorithm {
	case ES256:
		key.Key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case EdDSA:
		_, key.Key, err = ed25519.GenerateKey(rand.Reader)
	default:
		err = fmt.Errorf("no algorithm %q: want %s or %s", algorithm, ES256, EdDSA)
	}
	return key, err
}

// Run keeps the keys up to date until ctx ends. While they cannot be loaded,
// those at hand serve.
func (r *Keyring) Run(ctx context.Context) error {
	poll := time.NewTicker(keyPoll)
	defer poll.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-poll.C:
			_ = r.load(ctx) // Postgres is checked, and its absence logged, elsewhere.
		}
	}
}

func (r *Keyring) load(ctx context.Context) error {
	keys, err := r.store.Load(ctx)
	if err != nil {
		return err
	}
	if len(keys) == 0 {
		return errors.New("no signing key")
	}
	public := map[string]crypto.PublicKey{}
	for _, k := range keys {
		public[k.ID] = k.Key.Public()
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

// JWKS returns the public keys as a JWK set, also those that do not sign yet.
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
	// Another replica may sign with a key that was made in haste.
	r.mu.Lock()
	recent := r.now().Sub(r.loaded) < keyRetry
	r.loaded = r.now()
	r.mu.Unlock()
	if !recent && r.load(ctx) == nil {
		if key, ok := r.find(kid); ok {
			return key, nil
		}
	}
	return nil, token.ErrUnknownKey
}

func (r *Keyring) find(kid string) (crypto.PublicKey, bool) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	for _, k := range r.keys {
		if k.ID == kid {
			return k.Key.Public(), true
		}
	}
	return nil, false
}

// signing returns the key that signs now.
func (r *Keyring) signing() SigningKey {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return signingAt(r.keys, r.now())
}

// signingAt returns the key that was activated last.
func signingAt(keys []SigningKey, now time.Time) SigningKey {
	for _, k := range keys {
		if !k.ActivatesAt.After(now) {
			return k
		}
	}
	return keys[len(keys)-1]
}

// List returns the keys, and the id of the one that signs now.
func (r *Keyring) List() (keys []SigningKey, signing string) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return slices.Clone(r.keys), signingAt(r.keys, r.now()).ID
}

// Rotate makes a key that signs after notice. Verifiers know it by then if notice
// is KeyNotice or longer; otherwise they may refuse good tokens for a moment.
func (r *Keyring) Rotate(ctx context.Context, algorithm string, notice time.Duration) (SigningKey, error) {
	now := r.now()
	key, err := newKey(algorithm, now, now.Add(notice))
	if err != nil {
		return SigningKey{}, err
	}
	err = r.store.Change(ctx, func([]SigningKey) (KeyChange, error) {
		return KeyChange{Add: &key, Events: []event.Event{event.New(ctx, now, "", event.SigningKeyRotated{
			KeyID: key.ID, Algorithm: algorithm, ActivatesAt: key.ActivatesAt,
		})}}, nil
	})
	if err != nil {
		return SigningKey{}, err
	}
	return key, r.load(ctx)
}

// Retire removes a key: tokens signed with it are refused from now on, by other
// processes within a minute. It fails with ErrNoSuchKey, and, unless forced, with
// ErrKeyInUse while such tokens, which live for lifetime, can be good. The last
// key and the one that signs are never removed.
func (r *Keyring) Retire(ctx context.Context, id string, lifetime time.Duration, force bool) error {
	now := r.now()
	err := r.store.Change(ctx, func(keys []SigningKey) (KeyChange, error) {
		i := slices.IndexFunc(keys, func(k SigningKey) bool { return k.ID == id })
		if i < 0 {
			return KeyChange{}, ErrNoSuchKey
		}
		if signingAt(keys, now).ID == id {
			return KeyChange{}, errors.New("this key signs; rotate first")
		}
		// It signed until the next one was activated, or never.
		if keys[i].ActivatesAt.Before(now) && i > 0 && !force {
			if until := keys[i-1].ActivatesAt.Add(lifetime + keyPoll); now.Before(until) {
				return KeyChange{}, fmt.Errorf("%w (after %s there is no need)", ErrKeyInUse, until.Format(time.RFC3339))
			}
		}
		return KeyChange{Remove: id, Events: []event.Event{event.New(ctx, now, "", event.SigningKeyRetired{KeyID: id, Forced: force})}}, nil
	})
	if err != nil {
		return err
	}
	return r.load(ctx)
}
