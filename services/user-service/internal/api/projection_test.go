package api_test

import (
	"slices"
	"testing"
	"time"

	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/pkg/testkit"
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
