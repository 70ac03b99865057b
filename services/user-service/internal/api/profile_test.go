package api_test

import (
	"strings"
	"testing"
	"time"

	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/pkg/testkit"
	"github.com/headgate/headgate/pkg/token"
)

// TestPreferencesAreKeptAsTheyAre: text that only looks like a NUL is stored unchanged.
func TestPreferencesAreKeptAsTheyAre(t *testing.T) {
	t.Parallel()
	s := newService(t, testkit.RedisURL(t))
	me := newUser()
	if a := s.do(me, "PATCH", "/me", `{"preferences":{"a":"x\u0000"}}`); a.status != 400 {
		t.Errorf("NUL = %d", a.status)
	}
	s.want(s.do(me, "PATCH", "/me", `{"preferences":{"path":"C:\\u0000dir"}}`), 200)
	patched := s.want(s.do(me, "PATCH", "/me", `{"preferences":{"b":1e2,"aa":1}}`), 200)
	if read := s.want(s.do(me, "GET", "/me", ""), 200); string(read.Data) != string(patched.Data) || read.header.Get("ETag") != patched.header.Get("ETag") {
		t.Errorf("one version has two profiles:\n%s\n%s", patched.Data, read.Data)
	}
	if again := s.want(s.do(me, "PATCH", "/me", `{"preferences":{"aa":1,"b":1e2}}`), 200); again.header.Get("ETag") != patched.header.Get("ETag") {
		t.Errorf("the same preferences made version %s of %s", again.header.Get("ETag"), patched.header.Get("ETag"))
	}
}

// TestTheEventOfTheSignUpReachesTheReader: the event of the sign-up corrects a profile
// that is already in the cache.
func TestTheEventOfTheSignUpReachesTheReader(t *testing.T) {
	t.Parallel()
	s := newService(t, testkit.RedisURL(t))
	me := newUser()
	before := s.want(s.do(me, "GET", "/me", ""), 200)
	at := time.Now().Add(-time.Hour).UTC().Truncate(time.Millisecond)
	s.publish(me.UserID, at, event.UserSignedUp{Email: me.Email, Name: me.Name, Role: "user"})
	s.wantAcknowledged()
	after := s.want(s.do(me, "GET", "/me", ""), 200)
	if !after.profile(t).CreatedAt.Equal(at) {
		t.Errorf("createdAt = %s from the cache (%s), want %s", after.profile(t).CreatedAt, after.header.Get("X-Cache"), at)
	}
	if before.header.Get("ETag") == after.header.Get("ETag") && string(before.Data) != string(after.Data) {
		t.Errorf("ETag %s stands for two profiles", after.header.Get("ETag"))
	}
}

// TestTheEventOfTheSignUpKeepsTheVersion is the normal case: an If-Match of the version
// that was read before the event still matches after it.
func TestTheEventOfTheSignUpKeepsTheVersion(t *testing.T) {
	t.Parallel()
	s := newService(t, testkit.RedisURL(t))
	me := newUser()
	signedUp := time.Now()
	tag := s.want(s.do(me, "GET", "/me", ""), 200).header.Get("ETag")
	s.publish(me.UserID, signedUp, event.UserSignedUp{Email: me.Email, Name: me.Name, Role: "user"})
	s.wantAcknowledged()
	if a := s.want(s.do(me, "GET", "/me", ""), 200); a.header.Get("X-Cache") != "HIT" {
		t.Errorf("an event without news removed the cached copy")
	}
	s.want(s.do(me, "PATCH", "/me", `{"bio":"x"}`, "If-Match", tag), 200)
}

// TestLateSignUpKeepsTheNewerAddress: the event arrives after a token with a newer
// address.
func TestLateSignUpKeepsTheNewerAddress(t *testing.T) {
	t.Parallel()
	s := newService(t, testkit.RedisURL(t))
	me := newUser()
	me.Email = "new@example.com"
	s.want(s.do(me, "GET", "/me", ""), 200)
	s.publish(me.UserID, time.Now().Add(-time.Hour), event.UserSignedUp{Email: "old@example.com", Name: "Ann", Role: "user"})
	s.wantAcknowledged()
	if p := s.want(s.do(token.Identity{Role: token.RoleAdmin}, "GET", "/"+me.UserID, ""), 200).profile(t); p.Email != "new@example.com" {
		t.Errorf("email = %s", p.Email)
	}
}

// TestInvalidKeyAffectsOneUser stores a value of another type under one user's key.
func TestInvalidKeyAffectsOneUser(t *testing.T) {
	t.Parallel()
	s := newService(t, testkit.RedisURL(t))
	me, other, admin := newUser(), newUser(), token.Identity{Role: token.RoleAdmin}
	s.want(s.do(other, "GET", "/me", ""), 200)
	if err := s.redis.LPush(t.Context(), "user:profile:v1:"+me.UserID, "x").Err(); err != nil {
		t.Fatal(err)
	}
	s.want(s.do(admin, "DELETE", "/"+me.UserID+"/cache", ""), 200)
	if err := s.redis.Del(t.Context(), "user:profile:v1:"+me.UserID).Err(); err != nil {
		t.Fatal(err)
	}
	if err := s.redis.LPush(t.Context(), "user:profile:v1:"+me.UserID, "x").Err(); err != nil {
		t.Fatal(err)
	}
	for range 4 {
		s.want(s.do(me, "GET", "/me", ""), 200)
	}
	if a := s.do(other, "GET", "/me", ""); a.header.Get("X-Cache") != "HIT" {
		t.Errorf("another user's read came from %s", a.header.Get("X-Cache"))
	}
}

func TestTimesAreUTC(t *testing.T) {
	t.Parallel()
	s := newService(t, testkit.RedisURL(t))
	me := newUser()
	for range 2 {
		a := s.want(s.do(me, "GET", "/me", ""), 200)
		if !strings.Contains(string(a.Data), `Z","updatedAt"`) {
			t.Errorf("%s has times that are not UTC", a.Data)
		}
	}
}

// TestHTTPDetails: methods, time zones, ids, entity tags and filters.
func TestHTTPDetails(t *testing.T) {
	t.Parallel()
	s := newService(t, testkit.RedisURL(t))
	me := newUser()
	for range 6 { // The order of the routes must not depend on chance.
		if a := newService(t, testkit.RedisURL(t)).do(me, "POST", "/me", "{}"); a.status != 405 || a.header.Get("Allow") != "GET, HEAD, PATCH" {
			t.Fatalf("POST /me = %d, Allow: %s", a.status, a.header.Get("Allow"))
		}
	}
	for _, zone := range []string{"posix/Europe/Berlin", "right/UTC", "localtime", "posixrules"} {
		if a := s.do(me, "PATCH", "/me", `{"timezone":"`+zone+`"}`); a.status != 400 {
			t.Errorf("timezone %s = %d", zone, a.status)
		}
	}
	stranger := me
	stranger.UserID = "no uuid"
	if a := s.do(stranger, "GET", "/me", ""); a.status != 401 {
		t.Errorf("a token without an account = %d", a.status)
	}
	tag := s.want(s.do(me, "GET", "/me", ""), 200).header.Get("ETag")
	if a := s.do(me, "GET", "/me", "", "If-None-Match", `"0", W/`+tag); a.status != 304 {
		t.Errorf("weak If-None-Match = %d", a.status)
	}
	if a := s.do(me, "PATCH", "/me", `{"bio":"x"}`, "If-Match", "W/"+tag); a.status != 412 {
		t.Errorf("weak If-Match = %d", a.status)
	}
	if a := s.do(token.Identity{Role: token.RoleAdmin}, "GET", "/?Q=ann", ""); a.status != 400 {
		t.Errorf("misspelt filter = %d", a.status)
	}
	other := "/" + newUser().UserID
	for path, want := range map[string]int{"/" + me.UserID: 200, other: 403} {
		if a := s.do(me, "GET", path, ""); a.status != want {
			t.Errorf("GET %s = %d, want %d", path, a.status, want)
		}
	}
}
