// Package token signs and verifies access tokens, and finds out which sessions were ended.
// It reads public keys; it does not know how signing keys are stored.
package token

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"errors"
	"fmt"
	"slices"

	"github.com/golang-jwt/jwt/v5"
)

// Type is the typ header of an access token (RFC 9068, 2.1).
const Type = "at+jwt"

// Claims are the claims of an access token. Email and Name are those of the account when
// the token was signed: good enough to show a profile before its event has arrived, but
// never a basis for a decision.
type Claims struct {
	jwt.RegisteredClaims
	SessionID string           `json:"sid"`
	Role      string           `json:"role"`
	AuthTime  *jwt.NumericDate `json:"auth_time"`
	Email     string           `json:"email"`
	Name      string           `json:"name"`
}

// The roles.
const (
	RoleUser    = "user"
	RoleAuditor = "auditor"
	RoleAdmin   = "admin"
)

// Identity is the subject of a verified token.
type Identity struct {
	UserID    string
	SessionID string
	Role      string
	Email     string
	Name      string
}

// Is reports whether the identity has one of the roles.
func (i Identity) Is(roles ...string) bool { return slices.Contains(roles, i.Role) }

type identityKey struct{}

// WithIdentity returns a context that carries i.
func WithIdentity(ctx context.Context, i Identity) context.Context {
	return context.WithValue(ctx, identityKey{}, i)
}

// From returns the identity that WithIdentity has put into ctx; ok is false for an anonymous
// request.
func From(ctx context.Context) (i Identity, ok bool) {
	i, ok = ctx.Value(identityKey{}).(Identity)
	return i, ok
}

// Sign returns the token for c, signed with ES256 or EdDSA depending on the type of key.
func Sign(key crypto.Signer, kid string, c Claims) (string, error) {
	method, err := methodOf(key.Public())
	if err != nil {
		return "", err
	}
	t := jwt.NewWithClaims(method, c)
	t.Header["typ"] = Type
	t.Header["kid"] = kid
	signed, err := t.SignedString(key)
	if err != nil {
		return "", fmt.Errorf("sign access token: %w", err)
	}
	return signed, nil
}

func methodOf(key crypto.PublicKey) (jwt.SigningMethod, error) {
	switch k := key.(type) {
	case *ecdsa.PublicKey:
		if k.Curve != elliptic.P256() {
			return nil, errors.New("ECDSA key is not on curve P-256")
		}
		return jwt.SigningMethodES256, nil
	case ed25519.PublicKey:
		return jwt.SigningMethodEdDSA, nil
	}
	return nil, fmt.Errorf("unsupported key type %T", key)
}
