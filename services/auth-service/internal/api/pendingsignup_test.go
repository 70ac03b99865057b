package api_test

import (
	"testing"
	"time"

	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/services/auth-service/internal/account"
)

// In strict mode the newest sign-up of an unverified address counts, so a person who signs
// up after another can verify the address with a password of their own.
func TestSEC87StrictSignUpReplacesThePendingOne(t *testing.T) {
	t.Parallel()
	s := newService(t, func(cfg *account.Config) { cfg.Mode = account.SignUpStrict })
	signup := func(password, name string) string {
		t.Helper()
		s.want(s.call("POST", "/signup", "", fields{"email": "victim@example.com", "password": password, "name": name}), 202, "")
		s.wantServed()
		var id string
		if err := s.db.QueryRow(t.Context(), `SELECT id::text FROM accounts WHERE email_key = 'victim@example.com'`).Scan(&id); err != nil {
			t.Fatal(err)
		}
		return id
	}
	stranger := signup(otherPassword, "Eve")
	first := s.link(event.UserVerificationRequested{}, "victim@example.com", 1)
	victim := signup(goodPassword, "Vic")
	s.wantGone(stranger, "replaced")
	s.want(s.call("POST", "/verify-email", "", fields{"token": first, "password": otherPassword}), 400, "token_invalid")
	s.verify("victim@example.com", 2, goodPassword)
	s.want(s.try("victim@example.com", otherPassword), 401, "invalid_credentials")
	if in := s.login("victim@example.com").Data.User; in.ID != victim || in.Name != "Vic" {
		t.Errorf("user = %+v", in)
	}
	signup(otherPassword, "Eve") // The account is verified, so it stays.
	s.login("victim@example.com")
}

// Neither the sign-up of a stranger nor a purge deletes an account that a person has used,
// or that an operator has created.
func TestSEC87UsedAccountsStay(t *testing.T) {
	t.Parallel()
	var before account.Config
	s := newService(t, func(cfg *account.Config) {
		before = *cfg // The operator changes these later.
		cfg.Mode, cfg.Lifetimes.Unverified = account.SignUpStrict, 7*24*time.Hour
	})
	joined := s.time().Add(-365 * 24 * time.Hour)
	in := account.SignUp{Email: "used@example.com", Password: goodPassword, Name: "Ann"}
	if _, _, err := account.New(before).Register(t.Context(), in, ""); err != nil {
		t.Fatal(err)
	}
	if _, err := s.accounts.Import(t.Context(), []account.Imported{{Email: "old@example.com", Name: "Bob", CreatedAt: joined}}); err != nil {
		t.Fatal(err)
	}
	for _, email := range []string{"used@example.com", "old@example.com"} {
		s.want(s.call("POST", "/signup", "", fields{"email": email, "password": otherPassword, "name": "Eve"}), 202, "")
	}
	s.wantServed()
	s.advance(30 * 24 * time.Hour)
	if err := s.accounts.PurgeUnverified(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := s.count(event.User, event.UserDeleted{}); n != 0 {
		t.Errorf("%d accounts were deleted, want none", n)
	}
}

// Unverified accounts that cannot sign in are deleted after a while, as their owners could.
func TestSEC87UnverifiedAccountsArePurged(t *testing.T) {
	t.Parallel()
	s := newService(t, func(cfg *account.Config) {
		cfg.RequireVerified, cfg.Lifetimes.Unverified = true, 7*24*time.Hour
	})
	gone := s.signup("gone@example.com").Data.User.ID
	s.verified("kept@example.com")
	s.advance(6 * 24 * time.Hour)
	s.signup("new@example.com")
	admin := s.admin()
	for email, change := range map[string]fields{"disabled@example.com": {"status": "disabled"}, "auditor@example.com": {"role": "auditor"}} {
		s.want(s.call("PATCH", "/users/"+s.signup(email).Data.User.ID, admin.AccessToken, change), 200, "")
	}
	purge := func(want int) {
		t.Helper()
		if err := s.accounts.PurgeUnverified(t.Context()); err != nil {
			t.Fatal(err)
		}
		if n := s.count(event.User, event.UserDeleted{}); n != want {
			t.Errorf("%d accounts were deleted, want %d", n, want)
		}
	}
	purge(0)
	s.advance(25 * time.Hour)
	purge(1)
	s.wantGone(gone, "unverified")
	s.signup("gone@example.com") // The address is free.
	s.advance(8 * 24 * time.Hour)
	purge(3)
}
