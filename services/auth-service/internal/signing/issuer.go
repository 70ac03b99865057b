package signing

import (
	"errors"
	"fmt"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/google/uuid"

	"github.com/headgate/headgate/pkg/problem"
	"github.com/headgate/headgate/pkg/service"
	"github.com/headgate/headgate/pkg/token"
)

// The failures of refresh tokens.
var (
	ErrRefreshInvalid = problem.New(problem.Unauthenticated, "refresh_token_invalid", "Invalid refresh token.")
	ErrRefreshExpired = problem.New(problem.Unauthenticated, "refresh_token_expired", "The session has expired. Sign in again.")
)

// Issuer issues access tokens, signed with the active key of a keyring, and
// refresh tokens, signed with secrets that only auth-service knows. It is safe
// for concurrent use.
type Issuer struct {
	expected       token.Expected
	keys           *Keyring
	refreshKeys    service.Keys
	accessLifetime time.Duration
}

// NewIssuer returns an issuer whose access tokens are valid for accessLifetime. It signs
// refresh tokens with the first of refreshKeys and accepts those of all.
func NewIssuer(expected token.Expected, keys *Keyring, refreshKeys service.Keys, accessLifetime time.Duration) *Issuer {
	return &Issuer{expected: expected, keys: keys, refreshKeys: refreshKeys, accessLifetime: accessLifetime}
}

// Claims are what the tokens of a session say.
type Claims struct {
	AccountID     string
	Role          string
	Email         string // empty unless it is proved
	EmailVerified bool
	Name          string

	SessionID       string
	SessionAt       time.Time // the beginning of the session
	Generation      int       // of the refresh token
	AuthenticatedAt time.Time // the last sign-in or re-authentication
	Methods         []string  // of it (RFC 8176)
	Level           string    // of it: token.AAL1 or token.AAL2
	RotatedAt       time.Time // when this generation began
	ExpiresAt       time.Time // of the refresh token
}

// Tokens are the tokens of one session.
type Tokens struct {
	Access           string
	AccessExpiresIn  time.Duration
	Refresh          string
	RefreshExpiresAt time.Time
	SessionID        string
	Device           string // the device token of a sign-in; empty otherwise
}

// RefreshClaims are what a valid refresh token says.
type RefreshClaims struct {
	AccountID  string
	SessionID  string
	Generation int
}

const refreshType = "refresh+jwt"

type refreshJWT struct {
	jwt.RegisteredClaims

	SessionID  string `json:"sid"`
	Generation int    `json:"gen"`
}

// Issue returns tokens for a session. The refresh token depends on the claims
// and the first key alone, so issuing the same claims again returns the same refresh token.
func (i *Issuer) Issue(c Claims, now time.Time) (Tokens, error) {
	key := i.keys.active()
	authenticated := c.AuthenticatedAt
	if authenticated.After(now) { // By the clock of another process.
		authenticated = now
	}
	access, err := token.Sign(key.Signer, key.ID, token.Claims{
		RegisteredClaims: jwt.RegisteredClaims{
			Issuer:    i.expected.Issuer,
			Audience:  jwt.ClaimStrings{i.expected.Audience},
			Subject:   c.AccountID,
			ID:        uuid.Must(uuid.NewV7()).String(),
			IssuedAt:  jwt.NewNumericDate(now),
			ExpiresAt: jwt.NewNumericDate(now.Add(i.accessLifetime)),
		},
		SessionID: c.SessionID,
		Role:      c.Role,
		SessionAt: jwt.NewNumericDate(c.SessionAt),
		AuthTime:  jwt.NewNumericDate(authenticated),
		AMR:       c.Methods,
		ACR:       c.Level,
		Email:     c.Email,
		Name:      c.Name,

		EmailVerified: c.EmailVerified,
	})
	if err != nil {
		return Tokens{}, err
	}
	refresh, err := i.signRefresh(c)
	if err != nil {
		return Tokens{}, err
	}
	return Tokens{
		Access: access, AccessExpiresIn: i.accessLifetime,
		Refresh: refresh, RefreshExpiresAt: c.ExpiresAt,
		SessionID: c.SessionID,
	}, nil
}

func (i *Issuer) signRefresh(c Claims) (string, error) {
	t := jwt.NewWithClaims(jwt.SigningMethodHS256, refreshJWT{
		RegisteredClaims: jwt.RegisteredClaims{
			Issuer:    i.expected.Issuer,
			Subject:   c.AccountID,
			IssuedAt:  jwt.NewNumericDate(c.RotatedAt),
			ExpiresAt: jwt.NewNumericDate(c.ExpiresAt),
		},
		SessionID:  c.SessionID,
		Generation: c.Generation,
	})
	t.Header["typ"] = refreshType
	key := i.refreshKeys[0]
	t.Header["kid"] = key.ID
	signed, err := t.SignedString([]byte(key.Secret.Reveal()))
	if err != nil {
		return "", fmt.Errorf("sign refresh token: %w", err)
	}
	return signed, nil
}

const maxRefreshBytes = 2 << 10

// VerifyRefresh checks the signature, type and expiry of a refresh token. Whether
// its session still accepts it is for the caller to decide. It fails with
// ErrRefreshInvalid or ErrRefreshExpired.
func (i *Issuer) VerifyRefresh(raw string, now time.Time) (RefreshClaims, error) {
	var claims refreshJWT
	if len(raw) > maxRefreshBytes {
		return RefreshClaims{}, ErrRefreshInvalid
	}
	parser := jwt.NewParser(
		jwt.WithValidMethods([]string{jwt.SigningMethodHS256.Alg()}),
		jwt.WithIssuer(i.expected.Issuer),
		jwt.WithExpirationRequired(),
		jwt.WithStrictDecoding(),
		jwt.WithTimeFunc(func() time.Time { return now }),
	)
	_, err := parser.ParseWithClaims(raw, &claims, func(t *jwt.Token) (any, error) {
		if _, ok := t.Header["crit"]; ok || t.Header["typ"] != refreshType {
			return nil, errors.New("not a refresh token")
		}
		kid, named := t.Header["kid"].(string)
		if !named {
			kid = service.DefaultKey
		}
		key, ok := i.refreshKeys.Find(kid)
		if !ok {
			return nil, errors.New("unknown key")
		}
		return []byte(key.Secret.Reveal()), nil
	})
	switch {
	case errors.Is(err, jwt.ErrTokenExpired):
		return RefreshClaims{}, ErrRefreshExpired
	case err != nil || uuid.Validate(claims.SessionID) != nil || claims.Generation < 1:
		return RefreshClaims{}, ErrRefreshInvalid
	}
	return RefreshClaims{AccountID: claims.Subject, SessionID: claims.SessionID, Generation: claims.Generation}, nil
}

// VerifyExpiredRefresh is VerifyRefresh for a caller to whom an expired token is as
// good as a fresh one.
func (i *Issuer) VerifyExpiredRefresh(raw string) (RefreshClaims, error) {
	return i.VerifyRefresh(raw, time.Time{})
}
