package api_test

import (
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/pkg/testkit"
	"github.com/headgate/headgate/pkg/token"
)

// TestSEC68SelfAndAdministratorSeeTheSame is SEC-68: a profile has the same content for its
// user and for an administrator, whichever of them has filled the cache, and Redis has no more of
// it than they see.
func TestSEC68SelfAndAdministratorSeeTheSame(t *testing.T) {
	t.Parallel()
	s := newService(t, testkit.RedisURL(t))
	me, admin := newUser(), token.Identity{UserID: uuid.NewString(), Role: token.RoleAdmin}
	s.want(s.do(me, "PATCH", "/me", `{"bio":"Counts.","preferences":{"theme":"dark"}}`), 200)
	s.wantAcknowledged()
	var answers []string
	for _, tc := range []struct {
		caller       token.Identity
		path, source string
	}{
		{admin, "/" + me.UserID, "MISS"},
		{me, "/me", "HIT"},
		{me, "/" + me.UserID, "HIT"},
		{admin, "/" + me.UserID, "HIT"},
	} {
		a := s.want(s.do(tc.caller, "GET", tc.path, ""), 200)
		if source := a.header.Get("X-Cache"); source != tc.source {
			t.Errorf("%s as %s came from %s, want %s", tc.path, tc.caller.Role, source, tc.source)
		}
		answers = append(answers, a.header.Get("ETag")+string(a.Data))
	}
	for _, a := range answers {
		if a != answers[0] {
			t.Errorf("one profile has two contents:\n%s\n%s", answers[0], a)
		}
	}
	var cached struct {
		Profile map[string]any
	}
	decode(t, s.redis.Get(t.Context(), "user:profile:v1:"+me.UserID).Val(), &cached)
	var shown map[string]any
	decode(t, string(s.do(me, "GET", "/me", "").Data), &shown)
	if fmt.Sprint(cached.Profile) != fmt.Sprint(shown) {
		t.Errorf("Redis has %v, and the user sees %v", cached.Profile, shown)
	}
}

func decode(t *testing.T, text string, to any) {
	t.Helper()
	if err := json.Unmarshal([]byte(text), to); err != nil {
		t.Fatalf("%v in %s", err, text)
	}
}

// TestREL102MissingProfile is REL-102 over HTTP: an administrator asks for a profile that does
// not exist, and sees it as soon as it does. Its user is never told that there is none.
func TestREL102MissingProfile(t *testing.T) {
	t.Parallel()
	s := newService(t, testkit.RedisURL(t))
	admin := token.Identity{UserID: uuid.NewString(), Role: token.RoleAdmin}
	for how, create := range map[string]func(me token.Identity){
		"by reading it": func(me token.Identity) { s.want(s.do(me, "GET", "/me", ""), 200) },
		"by changing it": func(me token.Identity) {
			s.want(s.do(me, "PATCH", "/me", `{"bio":"x"}`), 200)
		},
		"by event": func(me token.Identity) {
			s.publish(me.UserID, time.Now(), event.UserSignedUp{Email: me.Email, Name: me.Name, Role: "user"})
			s.wantAcknowledged()
		},
	} {
		me := newUser()
		for range 2 {
			s.want(s.do(admin, "GET", "/"+me.UserID, ""), 404)
		}
		create(me)
		if a := s.do(admin, "GET", "/"+me.UserID, ""); a.status != 200 {
			t.Errorf("%s: an administrator gets %d %s", how, a.status, a.Code)
		}
	}
}
