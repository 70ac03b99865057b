package api_test

import (
	"testing"
	"time"

	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/pkg/testkit"
	"github.com/headgate/headgate/pkg/token"
)

// SEC-93: a token without an address, because nobody has proved it, still shows its owner
// the profile at once. auth-service is asked at most once, and not after the event.
func TestSEC93ProfileBeforeTheAddressIsProved(t *testing.T) {
	t.Parallel()
	s := newService(t, testkit.RedisURL(t))
	ann := newUser()
	ann.Email = ""
	if a := s.do(ann, "GET", "/me", ""); a.status != 503 || a.Code != "account_unavailable" || a.header.Get("Retry-After") == "" {
		t.Errorf("without auth-service = %d %s %v, want 503 account_unavailable", a.status, a.Code, a.header)
	}
	s.issuer.SetAccount(token.Account{ID: ann.UserID, Email: "ann@example.com", Name: "Ann"})
	asked := s.issuer.AccountsAsked()
	for range 3 {
		if p := s.want(s.do(ann, "GET", "/me", ""), 200).profile(t); p.Email != "ann@example.com" || p.Name != "Ann" {
			t.Errorf("profile = %+v", p)
		}
	}
	s.want(s.do(ann, "PATCH", "/me", `{"bio":"Counts."}`), 200)
	if n := s.issuer.AccountsAsked() - asked; n != 1 {
		t.Errorf("auth-service was asked %d times, want once", n)
	}

	// A change may be the first request, and an event may be the first to arrive.
	ben, cleo := newUser(), newUser()
	ben.Email, cleo.Email = "", ""
	s.issuer.SetAccount(token.Account{ID: ben.UserID, Email: "ben@example.com", Name: "Ben"})
	if p := s.want(s.do(ben, "PATCH", "/me", `{"bio":"First."}`), 200).profile(t); p.Email != "ben@example.com" {
		t.Errorf("profile = %+v", p)
	}
	asked = s.issuer.AccountsAsked()
	s.publish(cleo.UserID, time.Now(), event.UserSignedUp{Email: "cleo@example.com", Name: "Cleo", Role: "user"})
	s.wantAcknowledged()
	if p := s.want(s.do(cleo, "GET", "/me", ""), 200).profile(t); p.Email != "cleo@example.com" || s.issuer.AccountsAsked() != asked {
		t.Errorf("profile = %+v, auth-service was asked %d times", p, s.issuer.AccountsAsked()-asked)
	}
}
