package api_test

import (
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/pkg/testkit"
	"github.com/headgate/headgate/pkg/token"
)

// TestDeletedUserHasNoProfile: the profile of a deleted account is deleted, also in the
// cache. Neither a late sign-up event nor a token that is still valid restores it.
func TestDeletedUserHasNoProfile(t *testing.T) {
	t.Parallel()
	s := newService(t, testkit.RedisURL(t))
	me := newUser()
	s.want(s.do(me, "PATCH", "/me", `{"bio":"Counts."}`), 200)
	s.want(s.do(me, "GET", "/me", ""), 200)
	s.publish(me.UserID, time.Now(), event.UserDeleted{})
	s.wantAcknowledged()
	s.want(s.do(me, "GET", "/me", ""), 404)
	s.publish(me.UserID, time.Now(), event.UserSignedUp{Email: me.Email, Name: me.Name, Role: "user"})
	s.wantAcknowledged()
	s.want(s.do(me, "GET", "/me", ""), 404)
	s.want(s.do(me, "PATCH", "/me", `{"bio":"Back."}`), 404)
	if a := s.want(s.do(token.Identity{UserID: uuid.NewString(), Role: token.RoleAdmin}, "GET", "/?q="+me.Email, ""), 200); string(a.Data) != "[]" {
		t.Errorf("list = %s", a.Data)
	}
}
