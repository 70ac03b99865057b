package token_test

import (
	"errors"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/pkg/testkit"
	"github.com/headgate/headgate/pkg/token"
)

// TestSEC155Sessions: a connection that lasts learns that its session was ended or its token
// has expired.
func TestSEC155Sessions(t *testing.T) {
	t.Parallel()
	issuer := testkit.NewIssuer(t)
	verifier := issuer.Verifier()
	identity, session, err := verifier.VerifySession(t.Context(), issuer.Token(token.Identity{UserID: "ann", SessionID: "s"}))
	if err != nil || identity.UserID != "ann" || session.ID != "s" {
		t.Fatalf("identity %+v, session %+v, %v", identity, session, err)
	}
	if left := time.Until(session.Expires); left < 15*time.Minute || left > 15*time.Minute+10*time.Second {
		t.Errorf("the token expires in %s", left)
	}
	if err := verifier.Ended(session); err != nil {
		t.Errorf("a live session: %v", err)
	}
	verifier.Observe(testkit.NewEvent(t.Context(), "ann", event.SessionRevoked{SessionID: "s"}))
	if err := verifier.Ended(session); !errors.Is(err, token.ErrRevoked) {
		t.Errorf("a revoked session: %v", err)
	}
	if _, _, err := verifier.VerifySession(t.Context(), issuer.Token(token.Identity{SessionID: "s"})); !errors.Is(err, token.ErrRevoked) {
		t.Errorf("the token of a revoked session: %v", err)
	}
	if _, _, err := verifier.VerifySession(t.Context(), "junk"); !errors.Is(err, token.ErrInvalid) {
		t.Errorf("junk: %v", err)
	}

	claims := issuer.Claims(token.Identity{AuthTime: time.Now().Add(-time.Minute)})
	_, early, err := verifier.VerifySession(t.Context(), issuer.Sign(claims))
	if err != nil {
		t.Fatal(err)
	}
	claims = issuer.Claims(token.Identity{})
	claims.ExpiresAt = jwt.NewNumericDate(time.Now().Add(-3 * time.Second)) // within the leeway
	_, late, err := verifier.VerifySession(t.Context(), issuer.Sign(claims))
	if err != nil {
		t.Fatal(err)
	}
	verifier.Observe(testkit.NewEvent(t.Context(), "", event.SessionsAllRevoked{Before: time.Now().Add(-30 * time.Second)}))
	if err := verifier.Ended(early); !errors.Is(err, token.ErrRevoked) {
		t.Errorf("a session that began before all were ended: %v", err)
	}
	testkit.Eventually(t, func() error {
		if err := verifier.Ended(late); !errors.Is(err, token.ErrExpired) {
			return errors.New("the token has not expired")
		}
		return nil
	})
}
