package main

import (
	"strings"
	"testing"
	"time"

	"github.com/headgate/headgate/services/auth-service/internal/factor"
)

// By default, only accounts that cannot sign in are deleted if they stay unverified.
func TestSEC87PurgeIsOffWhereAccountsCanSignIn(t *testing.T) {
	t.Parallel()
	const week = 7 * 24 * time.Hour
	off, day := time.Duration(0), 24*time.Hour
	for name, tc := range map[string]struct {
		Config

		want time.Duration
	}{
		"open":           {Config{SignUpMode: "open"}, 0},
		"strict":         {Config{SignUpMode: "strict"}, week},
		"verified":       {Config{SignUpMode: "open", RequireVerifiedEmail: true}, week},
		"explicit":       {Config{SignUpMode: "open", UnverifiedTTL: &day}, day},
		"explicitly off": {Config{SignUpMode: "strict", UnverifiedTTL: &off}, 0},
	} {
		if got := tc.lifetimes().Unverified; got != tc.want {
			t.Errorf("%s: %s, want %s", name, got, tc.want)
		}
	}
}

// SEC-145: what browsers would refuse stops the start. By default, passkeys are those of the
// host of PUBLIC_BASE_URL.
func TestSEC145PasskeyConfig(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		Config

		want  string // the ID; empty if there are no passkeys
		fault string
	}{
		"default":           {Config{PublicBaseURL: "https://id.example.com"}, "id.example.com", ""},
		"default, local":    {Config{PublicBaseURL: "http://localhost:8080"}, "localhost", ""},
		"upper case, port":  {Config{PublicBaseURL: "https://ID.example.com:443/"}, "id.example.com", ""},
		"parent":            {Config{PublicBaseURL: "https://id.example.com", WebAuthnRPID: "example.com"}, "example.com", ""},
		"IP address":        {Config{PublicBaseURL: "https://192.0.2.1"}, "", ""},
		"IP address, ID":    {Config{PublicBaseURL: "http://127.0.0.1:8080", WebAuthnRPID: "localhost", WebAuthnOrigins: factor.Origins{"http://localhost:3000"}}, "localhost", ""},
		"IP address, no ID": {Config{PublicBaseURL: "https://192.0.2.1", WebAuthnOrigins: factor.Origins{"https://app.example.com"}}, "", "WEBAUTHN_ORIGINS"},
		"public suffix":     {Config{PublicBaseURL: "https://id.example.com", WebAuthnRPID: "com"}, "", "WEBAUTHN_RP_ID"},
		"no domain":         {Config{PublicBaseURL: "https://id.example.com", WebAuthnRPID: "https://example.com"}, "", "WEBAUTHN_RP_ID"},
	} {
		tc.BrandName = "Acme"
		checker, err := tc.passkeys()
		if (err != nil) != (tc.fault != "") || err != nil && !strings.Contains(err.Error(), tc.fault) {
			t.Errorf("%s: %v, want %q", name, err, tc.fault)
		}
		if (checker != nil) != (tc.want != "") || checker != nil && tc.relyingParty().ID != tc.want {
			t.Errorf("%s: %+v, want %q", name, tc.relyingParty(), tc.want)
		}
		if checker != nil && tc.relyingParty().Name != "Acme" {
			t.Errorf("%s: name = %q", name, tc.relyingParty().Name)
		}
	}
}
