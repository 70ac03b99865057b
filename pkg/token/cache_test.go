package token_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/headgate/headgate/pkg/testkit"
	"github.com/headgate/headgate/pkg/token"
)

// TestVerifiedTokensAreForgotten: that a token was found good once makes it no better
// than it is.
func TestVerifiedTokensAreForgotten(t *testing.T) {
	t.Parallel()
	key := newKey(t)
	raw, err := token.Sign(key, "k", claims(nil))
	if err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		change func(known keys, revoked *token.Revocations, now *time.Time)
		want   error
	}{
		"nothing":      {func(keys, *token.Revocations, *time.Time) {}, nil},
		"another copy": {func(known keys, _ *token.Revocations, _ *time.Time) { same := key.PublicKey; known["k"] = &same }, nil},
		"expired":      {func(_ keys, _ *token.Revocations, now *time.Time) { *now = now.Add(2 * time.Minute) }, token.ErrExpired},
		"revoked":      {func(_ keys, revoked *token.Revocations, _ *time.Time) { revoked.Revoke("s1") }, token.ErrRevoked},
		"key retired":  {func(known keys, _ *token.Revocations, _ *time.Time) { delete(known, "k") }, token.ErrInvalid},
		"another key":  {func(known keys, _ *token.Revocations, _ *time.Time) { known["k"] = &newKey(t).PublicKey }, token.ErrInvalid},
	} {
		known, revoked, now := keys{"k": key.Public()}, none(t), time.Now()
		v := token.NewVerifier(known, revoked, testkit.Expected, func() time.Time { return now })
		for range 2 {
			if _, err := v.Verify(t.Context(), raw); err != nil {
				t.Fatalf("%s: before: %v", name, err)
			}
		}
		tc.change(known, revoked, &now)
		for range 2 {
			if _, err := v.Verify(t.Context(), raw); !errors.Is(err, tc.want) {
				t.Errorf("%s: %v, want %v", name, err, tc.want)
			}
		}
		// What only looks like it was never checked.
		if _, err := v.Verify(t.Context(), strings.ToUpper(raw[:3])+raw[3:]); !errors.Is(err, token.ErrInvalid) {
			t.Errorf("%s: another token: %v", name, err)
		}
	}
}

func BenchmarkVerifyAgain(b *testing.B) {
	issuer := testkit.NewIssuer(b)
	v, raw := issuer.Verifier(), issuer.Token(token.Identity{})
	b.ReportAllocs()
	for b.Loop() {
		if _, err := v.Verify(b.Context(), raw); err != nil {
			b.Fatal(err)
		}
	}
}
