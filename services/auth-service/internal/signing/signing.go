// Package signing keeps the keys of access tokens and issues the tokens of a
// session. It knows no accounts, no HTTP and no SQL: its callers say what a token
// claims, and a Store keeps the keys.
package signing

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"fmt"
	"time"

	"github.com/google/uuid"
)

// Algorithms of signing keys, by their JOSE names.
const (
	ES256 = "ES256"
	EdDSA = "EdDSA"
)

// Key signs access tokens.
type Key struct {
	ID          string
	Signer      crypto.Signer
	CreatedAt   time.Time
	ActivatesAt time.Time
}

func newKey(algorithm string, now, activates time.Time) (Key, error) {
	key := Key{ID: uuid.NewString(), CreatedAt: now.UTC(), ActivatesAt: activates.UTC()}
	var err error
	switch algorithm {
	case ES256:
		key.Signer, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case EdDSA:
		_, key.Signer, err = ed25519.GenerateKey(rand.Reader)
	default:
		err = fmt.Errorf("unknown algorithm %q: use %s or %s", algorithm, ES256, EdDSA)
	}
	return key, err
}

// Algorithm returns the JOSE name of the key's algorithm.
func (k Key) Algorithm() string {
	if _, ok := k.Signer.Public().(ed25519.PublicKey); ok {
		return EdDSA
	}
	return ES256
}

// State is a step in the life of a signing key.
type State string

// The states, in the order in which a key passes through them. A scheduled key is
// published but does not sign yet. The active key signs. A retiring key no longer
// signs, but its tokens are still accepted. A retired key is deleted and its
// tokens are refused.
const (
	Scheduled State = "scheduled"
	Active    State = "active"
	Retiring  State = "retiring"
	Retired   State = "retired"
)

// keySet is a list of keys, the one activated last first.
type keySet []Key

// active returns the index of the key that signs at now: the one activated last.
// A key set has an active key even if the clock is behind every activation.
func (s keySet) active(now time.Time) int {
	for i, k := range s {
		if !k.ActivatesAt.After(now) {
			return i
		}
	}
	return len(s) - 1
}

// index returns the index of a key, or -1.
func (s keySet) index(id string) int {
	for i, k := range s {
		if k.ID == id {
			return i
		}
	}
	return -1
}

// state returns the state of the key at index i, Retired if there is none.
func (s keySet) state(i int, now time.Time) State {
	active := s.active(now)
	switch {
	case i < 0 || i >= len(s):
		return Retired
	case i < active:
		return Scheduled
	case i == active:
		return Active
	}
	return Retiring
}
