package api_test

import (
	"testing"

	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/pkg/testkit"
	"github.com/headgate/headgate/pkg/token"
)

// TestREL69HostileEvents is REL-69: an event whose texts cannot be stored becomes a dead
// letter and delays no other. The log stays readable.
func TestREL69HostileEvents(t *testing.T) {
	t.Parallel()
	s := newService(t)
	good := newEvent("good", event.Origin{}, event.UserLoggedIn{SessionID: "s"})
	for _, e := range testkit.HostileEvents(newEvent("hostile", event.Origin{}, event.UserLoggedIn{SessionID: "s"})) {
		s.publish(e)
	}
	s.publish(good)
	testkit.WantAcknowledged(t, s.redis, event.Audit)
	admin := token.Identity{Role: token.RoleAdmin}
	for _, path := range []string{"/events/" + good.ID, "/events?limit=100", "/dead-letters?limit=100"} {
		if a := s.get(path, admin); a.status != 200 {
			t.Errorf("GET %s = %d %s", path, a.status, a.Code)
		}
	}
}
