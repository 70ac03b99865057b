package api_test

import (
	"slices"
	"testing"
	"time"

	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/pkg/testkit"
	"github.com/headgate/headgate/pkg/token"
)

// TestProjectionInAnyOrder: the version of the account decides which address is current, not
// the order of arrival, nor clocks that were set back, nor duplicates.
func TestProjectionInAnyOrder(t *testing.T) {
	t.Parallel()
	s := newService(t, testkit.RedisURL(t))
	start := time.Now()
	type fact struct {
		at      time.Time
		payload event.Payload
	}
	facts := []fact{
		{start, event.UserSignedUp{Email: "first@example.com", Name: "Ann", Role: "user", AccountVersion: start.UnixMicro()}},
		{start.Add(-time.Hour), event.UserEmailChanged{Email: "second@example.com", AccountVersion: start.UnixMicro() + 1}},
		{start.Add(-2 * time.Hour), event.UserEmailChanged{Email: "third@example.com", AccountVersion: start.UnixMicro() + 2}},
	}
	for _, order := range [][]int{{0, 1, 2}, {0, 2, 1}, {1, 0, 2}, {1, 2, 0}, {2, 0, 1}, {2, 1, 0}} {
		me := newUser()
		me.Email = "first@example.com"
		for _, i := range slices.Concat(order, order) {
			s.publish(me.UserID, facts[i].at, facts[i].payload)
		}
		s.wantAcknowledged()
		if p := s.want(s.do(me, "GET", "/me", ""), 200).profile(t); p.Email != "third@example.com" || p.Name != "Ann" {
			t.Errorf("order %v: %s, %s", order, p.Email, p.Name)
		}
	}
}

// TestProjectionOfTheEarlierRelease: its events have no version and go by their time.
func TestProjectionOfTheEarlierRelease(t *testing.T) {
	t.Parallel()
	s := newService(t, testkit.RedisURL(t))
	me, start := newUser(), time.Now().Add(-time.Hour)
	s.publish(me.UserID, start.Add(2*time.Minute), event.UserEmailChanged{Email: "later@example.com"})
	s.publish(me.UserID, start.Add(time.Minute), event.UserEmailChanged{Email: "earlier@example.com"})
	s.wantAcknowledged()
	if p := s.want(s.do(me, "GET", "/me", ""), 200).profile(t); p.Email != "later@example.com" {
		t.Errorf("address = %s", p.Email)
	}
	s.publish(me.UserID, start, event.UserEmailChanged{Email: "new@example.com", AccountVersion: start.Add(3 * time.Minute).UnixMicro()})
	s.wantAcknowledged()
	if p := s.want(s.do(me, "GET", "/me", ""), 200).profile(t); p.Email != "new@example.com" {
		t.Errorf("address = %s", p.Email)
	}
}

// TestAddressOfARestoredAccount: the profile has the address of an account that was restored to
// before its last change, once its user signs in; the next change still counts. A token from
// before a change undoes nothing and costs no request.
func TestAddressOfARestoredAccount(t *testing.T) {
	t.Parallel()
	s := newService(t, testkit.RedisURL(t))
	me, lost := newUser(), time.Now().Add(-time.Minute)
	me.Email = "first@example.com"
	s.publish(me.UserID, lost, event.UserEmailChanged{Email: "lost@example.com", AccountVersion: lost.UnixMicro()})
	s.wantAcknowledged()

	early := s.issuer.Claims(me)
	early.IssuedAt.Time = lost.Add(-time.Minute)
	before, asked := "Bearer "+s.issuer.Sign(early), s.issuer.AccountsAsked()
	for range 2 {
		if p := s.want(s.do(me, "GET", "/me", "", "Authorization", before), 200).profile(t); p.Email != "lost@example.com" {
			t.Errorf("with a token from before the change: %s", p.Email)
		}
	}
	if n := s.issuer.AccountsAsked() - asked; n != 0 {
		t.Errorf("auth-service was asked %d times", n)
	}
	if p := s.want(s.do(me, "GET", "/me", ""), 200).profile(t); p.Email != "lost@example.com" {
		t.Errorf("without auth-service: %s", p.Email)
	}

	s.issuer.SetAccount(token.Account{ID: me.UserID, Email: "first@example.com", Name: "Ann"})
	asked = s.issuer.AccountsAsked()
	for range 2 {
		if p := s.want(s.do(me, "GET", "/me", ""), 200).profile(t); p.Email != "first@example.com" {
			t.Errorf("after the restore: %s", p.Email)
		}
	}
	if n := s.issuer.AccountsAsked() - asked; n != 1 {
		t.Errorf("auth-service was asked %d times, want once", n)
	}
	s.publish(me.UserID, time.Now(), event.UserEmailChanged{Email: "next@example.com", AccountVersion: time.Now().UnixMicro()})
	s.wantAcknowledged()
	if p := s.want(s.do(me, "GET", "/me", "", "Authorization", before), 200).profile(t); p.Email != "next@example.com" {
		t.Errorf("after the next change: %s", p.Email)
	}
}
