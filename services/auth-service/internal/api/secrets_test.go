package api_test

import (
	"strings"
	"testing"
	"time"

	"github.com/headgate/headgate/pkg/event"
)

// SEC-65: no secret is stored or published in the clear. Redis and the audit log contain
// what the outbox contains.
func TestSEC65NothingSecretIsStoredOrSent(t *testing.T) {
	t.Parallel()
	s := newService(t)
	a := s.signup("ann@example.com")
	link := s.link(event.UserVerificationRequested{}, "ann@example.com", 1)
	s.forgot("ann@example.com")
	reset := s.link(event.UserResetLinkIssued{}, "ann@example.com", 1)
	s.want(s.call("POST", "/login", "", fields{"email": "ann@example.com", "password": "wrong but long"}), 401, "invalid_credentials")
	var dump string
	err := s.db.QueryRow(t.Context(), `
		SELECT (SELECT string_agg(payload::text, '') FROM outbox) ||
			(SELECT string_agg(t::text, '') FROM one_time_tokens t) ||
			(SELECT string_agg(s::text, '') FROM sessions s) ||
			(SELECT string_agg(a::text, '') FROM accounts a) ||
			(SELECT string_agg(k::text, '') FROM signing_keys k)`).Scan(&dump)
	if err != nil {
		t.Fatal(err)
	}
	for _, secret := range []string{goodPassword, "wrong but long", a.Data.Tokens.AccessToken, a.Data.Tokens.RefreshToken, link, reset, "PRIVATE KEY"} {
		if strings.Contains(dump, secret) {
			t.Errorf("the database holds %q in the clear", secret)
		}
	}
}

// SEC-69: secrets have 256 random bits, or 120 if people type them, and never repeat.
func TestSEC69Secrets(t *testing.T) {
	t.Parallel()
	s := newService(t)
	ann := s.signup("ann@example.com").Data.Tokens
	seen := map[string]bool{}
	add := func(secret string, least int) {
		t.Helper()
		if seen[secret] || len(secret) < least {
			t.Errorf("the secret %q is repeated or too short", secret)
		}
		seen[secret] = true
	}
	const bits256, bits120 = 43, 24 // characters, in base64 and base32
	add(s.link(event.UserVerificationRequested{}, "ann@example.com", 1), bits256)
	for n := range 3 {
		s.forgot("ann@example.com")
		add(s.link(event.UserResetLinkIssued{}, "ann@example.com", n+1), bits256)
		s.advance(2 * time.Hour)
	}
	ann = s.refresh(ann.RefreshToken).Data.Tokens
	s.want(s.call("POST", "/reauthenticate", ann.AccessToken, fields{"password": goodPassword}), 200, "")
	for range 2 {
		id, secret, codes := s.enrol(ann.AccessToken)
		add(secret, 32) // 160 bits (RFC 4226)
		for _, code := range codes {
			add(code, bits120)
		}
		s.want(s.call("DELETE", "/mfa/totp/"+id, ann.AccessToken, fields{"password": goodPassword}), 200, "")
	}
	_, _, codes := s.enrol(ann.AccessToken)
	for _, code := range codes {
		add(code, bits120)
	}
	for range 3 {
		add(s.try("ann@example.com", goodPassword).Data.MFAToken, bits256)
	}
}
