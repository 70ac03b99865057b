package main

import (
	"testing"
	"time"
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
