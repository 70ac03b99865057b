package token

import (
	"context"
	"crypto"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/golang-jwt/jwt/v5"

	"github.com/headgate/headgate/pkg/problem"
)

// The errors of Verify. Every other reason to reject a token is ErrInvalid, so that a client
// learns nothing from the difference.
var (
	ErrInvalid = problem.New(problem.Unauthenticated, "token_invalid", "Invalid access token.")
	ErrExpired = problem.New(problem.Unauthenticated, "token_expired", "The access token has expired.")
	ErrNoKeys  = problem.New(problem.Unavailable, "keys_unavailable", "Access tokens cannot be verified at the moment. Try again later.").WithRetryAfter(2 * time.Second)
)

// ErrUnknownKey says that there is no key with the id.
var ErrUnknownKey = errors.New("unknown key id")

// Keys finds the public key with an id, or returns ErrUnknownKey. It must be fast for unknown
// ids, which anybody can make up.
type Keys interface {
	Key(ctx context.Context, kid string) (crypto.PublicKey, error)
}

// Expected is the part of the configuration that says which issuer and audience a token must
// have.
type Expected struct {
	Issuer   string `envconfig:"TOKEN_ISSUER" default:"headgate" desc:"The iss claim of access tokens."`
	Audience string `envconfig:"TOKEN_AUDIENCE" default:"headgate-api" desc:"The aud claim of access tokens."`
}

// Verifier verifies access tokens. It is safe for concurrent use.
type Verifier struct {
	keys     Keys
	revoked  *Revocations
	parser   *jwt.Parser
	now      func() time.Time
	verified *cache

	hits, misses atomic.Int64 // of lookups in verified
}

const (
	maxTokenBytes = 8 << 10
	leeway        = 5 * time.Second
)

// NewVerifier returns a verifier for tokens that are signed by one of keys and whose session
// is not revoked. The Run of revoked must be running.
func NewVerifier(keys Keys, revoked *Revocations, want Expected, now func() time.Time) *Verifier {
	return &Verifier{
		keys:     keys,
		revoked:  revoked,
		now:      now,
		verified: newCache(),
		parser: jwt.NewParser(
			jwt.WithValidMethods([]string{jwt.SigningMethodES256.Alg(), jwt.SigningMethodEdDSA.Alg()}),
			jwt.WithIssuer(want.Issuer),
			jwt.WithAudience(want.Audience),
			jwt.WithExpirationRequired(),
			jwt.WithIssuedAt(),
			jwt.WithLeeway(leeway),
			jwt.WithStrictDecoding(),
			jwt.WithTimeFunc(now),
		),
	}
}

// Verify returns the identity in raw (RFC 8725, RFC 9068), also together with ErrRevoked. It
// fails with ErrExpired, with ErrNoKeys if keys or revocations could never be fetched, and
// with ErrInvalid for every other reason.
func (v *Verifier) Verify(ctx context.Context, raw string) (Identity, error) {
	if raw == "" || len(raw) > maxTokenBytes {
		return Identity{}, ErrInvalid
	}
	identity, began, err := v.identity(ctx, raw)
	if err != nil {
		return Identity{}, err
	}
	switch err := v.revoked.check(ctx, identity.SessionID, began); {
	case errors.Is(err, ErrRevoked):
		return identity, ErrRevoked
	case err != nil:
		return Identity{}, err
	}
	return identity, nil
}

// Session is what ends a connection that outlives the request with the token.
type Session struct {
	ID      string
	Expires time.Time // of the token, including the leeway for clocks

	began time.Time
}

// VerifySession is Verify for a connection that is to last. Ended tells when it has to close.
func (v *Verifier) VerifySession(ctx context.Context, raw string) (Identity, Session, error) {
	identity, err := v.Verify(ctx, raw)
	if err != nil {
		return Identity{}, Session{}, err
	}
	found, err := v.verifiedToken(ctx, raw)
	if err != nil {
		return Identity{}, Session{}, err
	}
	return identity, Session{ID: identity.SessionID, Expires: found.expires, began: found.began}, nil
}

// Ended returns ErrRevoked if a session was revoked, ErrExpired if its token has expired, or
// nil. It is a lookup in memory.
func (v *Verifier) Ended(s Session) error {
	if v.revoked.has(s.ID, s.began) {
		return ErrRevoked
	}
	if !v.now().Before(s.Expires) {
		return ErrExpired
	}
	return nil
}

// identity returns the identity in raw and when its session began, without checking that. A
// verified token stays verified until it expires or its key is retired.
func (v *Verifier) identity(ctx context.Context, raw string) (Identity, time.Time, error) {
	found, err := v.verifiedToken(ctx, raw)
	if err != nil {
		return Identity{}, time.Time{}, err
	}
	return found.identity, found.began, nil
}

func (v *Verifier) verifiedToken(ctx context.Context, raw string) (*verified, error) {
	known := v.verified.get(raw)
	if known != nil {
		if !v.now().Before(known.expires) {
			v.verified.forget(raw)
			return nil, ErrExpired
		}
		if key, err := v.keys.Key(ctx, known.kid); err == nil && known.verifiedWith(key) {
			v.hits.Add(1)
			return known, nil
		}
		v.verified.forget(raw)
	}
	v.misses.Add(1)
	fresh, err := v.parse(ctx, raw)
	if err != nil {
		return nil, err
	}
	v.verified.put(fresh)
	return fresh, nil
}

// parse checks everything about raw except its session.
func (v *Verifier) parse(ctx context.Context, raw string) (*verified, error) {
	var claims Claims
	var found verified
	_, err := v.parser.ParseWithClaims(raw, &claims, func(t *jwt.Token) (any, error) {
		key, err := v.keyFor(ctx, t)
		if err == nil {
			found.key.Store(&key)
			found.kid, _ = t.Header["kid"].(string) // It is a string: a key with that id was found.
		}
		return key, err
	})
	switch {
	case errors.Is(err, ErrNoKeys):
		return nil, fmt.Errorf("verify access token: %w", err)
	case errors.Is(err, jwt.ErrTokenExpired):
		return nil, ErrExpired
	case err != nil:
		return nil, ErrInvalid
	case claims.Subject == "" || claims.SessionID == "" || claims.Role == "" || !unambiguous(raw):
		return nil, ErrInvalid
	}
	found.raw = strings.Clone(raw) // raw keeps the whole header of the request in memory
	found.expires = claims.ExpiresAt.Add(leeway)
	found.identity = Identity{
		UserID:    claims.Subject,
		SessionID: claims.SessionID,
		Role:      claims.Role,
		Email:     claims.Email,
		Name:      claims.Name,
		ACR:       claims.ACR,
	}
	if claims.IssuedAt != nil {
		found.identity.IssuedAt = claims.IssuedAt.UTC()
	}
	if claims.AuthTime != nil {
		found.identity.AuthTime = claims.AuthTime.Time
	}
	// A token of an earlier release says at most when the session was last authenticated.
	// Without that, the session is as old as it can be.
	found.began = found.identity.AuthTime
	if claims.SessionAt != nil {
		found.began = claims.SessionAt.Time
	}
	return &found, nil
}

// unambiguous reports whether a token's header and claims have no duplicate members, and its
// times are numbers. The JWT library is lenient there, and another library may read such a
// token differently (RFC 8725, 2.4; RFC 7519, 2).
func unambiguous(raw string) bool {
	parts := strings.Split(raw, ".")
	header, headerErr := base64.RawURLEncoding.DecodeString(parts[0])
	payload, payloadErr := base64.RawURLEncoding.DecodeString(parts[1])
	if headerErr != nil || payloadErr != nil || !jsontext.Value(header).IsValid() {
		return false
	}
	var times struct {
		Expires   jsontext.Value `json:"exp"`
		NotBefore jsontext.Value `json:"nbf"`
		IssuedAt  jsontext.Value `json:"iat"`
	}
	if err := json.Unmarshal(payload, &times); err != nil {
		return false
	}
	for _, at := range []jsontext.Value{times.Expires, times.NotBefore, times.IssuedAt} {
		if len(at) > 0 && at.Kind() != '0' {
			return false
		}
	}
	return true
}

func (v *Verifier) keyFor(ctx context.Context, t *jwt.Token) (crypto.PublicKey, error) {
	if t.Header["typ"] != Type {
		return nil, errors.New("not an access token")
	}
	if _, ok := t.Header["crit"]; ok {
		return nil, errors.New("unsupported critical extension")
	}
	kid, ok := t.Header["kid"].(string)
	if !ok || kid == "" || len(kid) > 128 {
		return nil, ErrUnknownKey
	}
	key, err := v.keys.Key(ctx, kid)
	if err != nil {
		return nil, err
	}
	method, err := methodOf(key)
	if err != nil {
		return nil, err
	}
	if method.Alg() != t.Method.Alg() {
		return nil, errors.New("algorithm does not match the key")
	}
	return key, nil
}
