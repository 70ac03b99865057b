package account

import (
	"errors"
	"fmt"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/google/uuid"

	"github.com/headgate/headgate/pkg/token"
)

// Issuer makes tokens: access tokens signed with the keyring, refresh tokens with
// a secret that nobody else knows. It is safe for concurrent use.
type Issuer struct {
	want    token.Expected
	keys    *Keyring
	refresh []byte
}

// NewIssuer returns an issuer.
func NewIssuer(want token.Expected, keys *Keyring, refreshSecret string) *Issuer {
	return &Issuer{want: want, keys: keys, refresh: []byte(refreshSecret)}
}

const refreshType = "refresh+jwt"

type refreshClaims struct {
	jwt.RegisteredClaims
	SessionID  string `json:"sid"`
	Generation int    `json:"gen"`
}

// tokens returns what a client gets for a session as it is now. The refresh
// token depends on the session alone, so a replay gets the very same one.
func (i *Issuer) tokens(owner Account, s Session, lifetimes Lifetimes, now time.Time) (Tokens, error) {
	key := i.keys.signing()
	access, err := token.Sign(key.Key, key.ID, token.Claims{
		RegisteredClaims: jwt.RegisteredClaims{
			Issuer:    i.want.Issuer,
			Audience:  jwt.ClaimStrings{i.want.Audience},
			Subject:   owner.ID,
			ID:        uuid.Must(uuid.NewV7()).String(),
			IssuedAt:  jwt.NewNumericDate(now),
			ExpiresAt: jwt.NewNumericDate(now.Add(lifetimes.Access)),
		},
		SessionID: s.ID,
		Role:      owner.Role,
		AuthTime:  jwt.NewNumericDate(s.CreatedAt),
		Email:     owner.Email.Address,
		Name:      owner.Name,
	})
	if err != nil {
		return Tokens{}, err
	}
	t := jwt.NewWithClaims(jwt.SigningMethodHS256, refreshClaims{
		RegisteredClaims: jwt.RegisteredClaims{
			Issuer:    i.want.Issuer,
			Subject:   owner.ID,
			IssuedAt:  jwt.NewNumericDate(s.RotatedAt),
			ExpiresAt: jwt.NewNumericDate(s.ExpiresAt),
		},
		SessionID:  s.ID,
		Generation: s.Generation,
	})
	t.Header["typ"] = refreshType
	refresh, err := t.SignedString(i.refresh)
	if err != nil {
		return Tokens{}, fmt.Errorf("sign refresh token: %w", err)
	}
	return Tokens{
		Access: access, AccessExpiresIn: lifetimes.Access,
		Refresh: refresh, RefreshExpiresAt: s.ExpiresAt,
		SessionID: s.ID,
	}, nil
}

const maxRefreshBytes = 2 << 10

// readRefresh checks signature, type and expiry of a refresh token. It fails
// with ErrRefreshInvalid or ErrRefreshExpired.
func (i *Issuer) readRefresh(raw string, now func() time.Time) (refreshClaims, error) {
	var claims refreshClaims
	if len(raw) > maxRefreshBytes {
		return claims, ErrRefreshInvalid
	}
	parser := jwt.NewParser(
		jwt.WithValidMethods([]string{jwt.SigningMethodHS256.Alg()}),
		jwt.WithIssuer(i.want.Issuer),
		jwt.WithExpirationRequired(),
		jwt.WithStrictDecoding(),
		jwt.WithTimeFunc(now),
	)
	_, err := parser.ParseWithClaims(raw, &claims, func(t *jwt.Token) (any, error) {
		if _, ok := t.Header["crit"]; ok || t.Header["typ"] != refreshType {
			return nil, errors.New("not a refresh token")
		}
		return i.refresh, nil
	})
	switch {
	case errors.Is(err, jwt.ErrTokenExpired):
		return claims, ErrRefreshExpired
	case err != nil || uuid.Validate(claims.SessionID) != nil || claims.Generation < 1:
		return claims, ErrRefreshInvalid
	}
	return claims, nil
}
