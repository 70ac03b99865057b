package api_test

import (
	"sync/atomic"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/headgate/headgate/pkg/token"
	"github.com/headgate/headgate/services/auth-service/internal/account"
)

// The life of a token begins when it is issued, however long the request took until then: no
// session in it is younger, and it is valid for all of its lifetime. Here each reading of the
// clock is later than the one before, as if a password had waited to be hashed in between.
func TestSEC12TokenTimes(t *testing.T) {
	t.Parallel()
	var running atomic.Pointer[service]
	s := newService(t, func(cfg *account.Config) {
		now := cfg.Now
		cfg.Now = func() time.Time {
			if s := running.Load(); s != nil {
				s.advance(time.Second)
			}
			return now()
		}
	})
	running.Store(s)
	check := func(how string, got tokens) tokens {
		t.Helper()
		var access token.Claims
		var refresh jwt.RegisteredClaims
		for raw, claims := range map[string]jwt.Claims{got.AccessToken: &access, got.RefreshToken: &refresh} {
			if _, _, err := jwt.NewParser().ParseUnverified(raw, claims); err != nil {
				t.Fatal(err)
			}
		}
		issued := access.IssuedAt.Time
		if access.AuthTime.After(issued) || access.SessionAt.After(issued) || access.AuthTime.Before(access.SessionAt.Time) {
			t.Errorf("%s: session_iat %v, auth_time %v, iat %v, want them in this order", how, access.SessionAt, access.AuthTime, issued)
		}
		if lives := access.ExpiresAt.Sub(issued); lives != 15*time.Minute || got.ExpiresIn != 15*60 {
			t.Errorf("%s: the access token lives %v, expiresIn %d", how, lives, got.ExpiresIn)
		}
		if lives := refresh.ExpiresAt.Sub(refresh.IssuedAt.Time); lives.Round(time.Minute) != 24*time.Hour || got.RefreshExpiresAt.Sub(refresh.ExpiresAt.Time).Abs() >= time.Second {
			t.Errorf("%s: the refresh token lives %v, refreshExpiresAt %v", how, lives, got.RefreshExpiresAt)
		}
		if refresh.IssuedAt.After(issued) {
			t.Errorf("%s: the refresh token is from %v, the access token from %v", how, refresh.IssuedAt, issued)
		}
		return got
	}
	ann := check("sign-up", s.signup("ann@example.com").Data.Tokens)
	check("login", s.login("ann@example.com").Data.Tokens)
	ann = check("refresh", s.want(s.refresh(ann.RefreshToken), 200, "").Data.Tokens)
	s.prove(ann.AccessToken, fields{"password": goodPassword})
	ann = check("refresh after a re-authentication", s.want(s.refresh(ann.RefreshToken), 200, "").Data.Tokens)
	ann = check("change of the password", s.want(s.call("POST", "/change-password", ann.AccessToken, fields{"currentPassword": goodPassword, "newPassword": otherPassword}), 200, "").Data.Tokens)
	ann = check("change back", s.want(s.call("POST", "/change-password", ann.AccessToken, fields{"currentPassword": otherPassword, "newPassword": goodPassword}), 200, "").Data.Tokens)
	owner := s.login("ann@example.com").Data.User
	key := s.addPasskey(owner, ann.AccessToken)
	begun := s.want(s.call("POST", "/passkeys/login", "", nil), 200, "").Data
	check("passkey", s.want(s.finishPasskeyLogin(begun.PasskeyToken, key.Login(begun.Options)), 200, "").Data.Tokens)
	_, _, recovery := s.enrol(ann.AccessToken)
	check("second factor", s.want(s.challenge(s.login("ann@example.com").Data.MFAToken, recovery[0]), 200, "").Data.Tokens)
}
