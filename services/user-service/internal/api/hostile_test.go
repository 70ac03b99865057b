package api_test

import (
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/pkg/testkit"
)

// TestREL69HostileEvents is REL-69: an event whose texts cannot be stored becomes a dead
// letter and delays no other.
func TestREL69HostileEvents(t *testing.T) {
	t.Parallel()
	s := newService(t, testkit.RedisURL(t))
	for _, p := range []event.Payload{
		event.UserSignedUp{Email: "ann@example.com", Name: "Ann"}, event.UserEmailChanged{Email: "ann@example.com"},
	} {
		for _, e := range testkit.HostileEvents(testkit.NewEvent(t.Context(), uuid.NewString(), p)) {
			testkit.Publish(t, s.redis, event.User, e)
		}
		s.wantAcknowledged()
	}
	good := newUser()
	s.publish(good.UserID, time.Now(), event.UserSignedUp{Email: good.Email, Name: good.Name})
	s.wantAcknowledged()
	var name string
	if err := s.db.QueryRow(t.Context(), `SELECT name FROM profiles WHERE user_id = $1`, good.UserID).Scan(&name); err != nil || name != good.Name {
		t.Errorf("name = %q, %v", name, err)
	}
}
