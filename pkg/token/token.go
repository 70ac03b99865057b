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
	"time"

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
	SessionAt *jwt.NumericDate `json:"session_iat,omitempty"` // the beginning of the session
	AuthTime  *jwt.NumericDate `json:"auth_time"`             // the last sign-in or re-authentication of the session
	AMR       []string         `json:"amr,omitempty"`         // how (RFC 8176)
	ACR       string           `json:"acr,omitempty"`         // AAL1 or AAL2
	Email     string           `json:"email,omitempty"`       // only if the person of the session has proved it
	Name      string           `json:"name"`

	EmailVerified bool `json:"email_verified"`
}

// The values of acr, after NIST SP 800-63B: how strongly a session was authenticated. AAL2
// says with two factors. A token of an earlier release has none, and counts as AAL1.
const (
	AAL1 = "aal1"
	AAL2 = "aal2"
)

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

	IssuedAt time.Time // of the token; zero if it does not say
	AuthTime time.Time // zero if the token does not say
	ACR      string

	// Restricted says that the role needs a second factor which the session lacks. Such an
	// identity is a plain user.
	Restricted bool
}

// Is reports whether the identity has one of the roles.
func (i Identity) Is(roles ...string) bool {
	if i.Restricted {
		return slices.Contains(roles, RoleUser)
	}
	return slices.Contains(roles, i.Role)
}

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
