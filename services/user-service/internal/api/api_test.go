package api_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/redis/go-redis/v9"

	"github.com/headgate/headgate/pkg/deadletter"
	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/pkg/localserver"
	"github.com/headgate/headgate/pkg/testkit"
	"github.com/headgate/headgate/pkg/token"
)

func TestMeBeforeAndAfterTheEvent(t *testing.T) {
	t.Parallel()
	s := newService(t, testkit.RedisURL(t))
	me := newUser()
	first := s.want(s.do(me, "GET", "/me", ""), 200)
	p := first.profile(t)
	if p.UserID != me.UserID || p.Email != me.Email || p.Name != me.Name || string(p.Preferences) != "{}" || first.header.Get("X-Cache") != "MISS" || first.header.Get("ETag") != `"1"` {
		t.Errorf("profile = %+v, %v", p, first.header)
	}
	s.want(s.do(me, "PATCH", "/me", `{"name":"Anna"}`), 200)
	signedUp := time.Now().Add(-time.Hour).UTC().Truncate(time.Millisecond)
	for range 2 {
		s.publish(me.UserID, signedUp, event.UserSignedUp{Email: "ann@example.com", Name: "Ann", Role: "user"})
	}
	s.wantAcknowledged()
	stored := s.want(s.do(token.Identity{Role: token.RoleAdmin}, "GET", "/"+me.UserID, ""), 200).profile(t)
	if stored.Name != "Anna" || !stored.CreatedAt.Equal(signedUp) {
		t.Errorf("after the event: %+v, want the owner's name and the time of the sign-up", stored)
	}
	// The other order: the event comes first.
	other := newUser()
	s.publish(other.UserID, signedUp, event.UserSignedUp{Email: "bob@example.com", Name: "Bob", Role: "user"})
	s.wantAcknowledged()
	if p := s.want(s.do(other, "GET", "/me", ""), 200).profile(t); p.Email != "bob@example.com" || p.Name != "Bob" {
		t.Errorf("profile = %+v", p)
	}
}

func TestPatch(t *testing.T) {
	t.Parallel()
	s := newService(t, testkit.RedisURL(t))
	me := newUser()
	long := strings.Repeat("x", 101)
	for name, tc := range map[string]struct {
		body, field, code string
		status            int
	}{
		"everything":       {body: `{"name":" Zoë ","bio":"Two\nlines","locale":"de-ch","timezone":"Europe/Zurich","preferences":{"b":1,"a":[1.50]}}`, status: 200},
		"nothing":          {body: `{}`, status: 200},
		"cleared":          {body: `{"bio":null,"locale":null,"timezone":null,"preferences":null}`, status: 200},
		"no name":          {body: `{"name":null}`, status: 400, field: "name", code: "required"},
		"blank name":       {body: `{"name":"  "}`, status: 400, field: "name", code: "required"},
		"long name":        {body: `{"name":"` + long + `"}`, status: 400, field: "name", code: "too_long"},
		"name with NUL":    {body: `{"name":"a\u0000b"}`, status: 400, field: "name", code: "nul_character"},
		"nested NUL":       {body: `{"preferences":{"theme":{"a":"\u0000"}}}`, status: 400, field: "preferences.theme.a", code: "nul_character"},
		"name reordered":   {body: `{"name":"Ann\u202egnp"}`, status: 400, field: "name", code: "invalid_format"},
		"bio of Windows":   {body: `{"bio":"a\r\n\tb"}`, status: 200},
		"long bio":         {body: `{"bio":"` + strings.Repeat("ä", 501) + `"}`, status: 400, field: "bio", code: "too_long"},
		"bio with escape":  {body: `{"bio":"\u001b[31m"}`, status: 400, field: "bio", code: "invalid_format"},
		"bad locale":       {body: `{"locale":"not a locale"}`, status: 400, field: "locale", code: "invalid_format"},
		"bad timezone":     {body: `{"timezone":"Mars/Olympus"}`, status: 400, field: "timezone", code: "invalid_format"},
		"local timezone":   {body: `{"timezone":"Local"}`, status: 400, field: "timezone", code: "invalid_format"},
		"timezone as path": {body: `{"timezone":"../../etc/passwd"}`, status: 400, field: "timezone", code: "invalid_format"},
		"preferences list": {body: `{"preferences":[]}`, status: 400, field: "preferences", code: "invalid_type"},
		"long preferences": {body: `{"preferences":{"x":"` + strings.Repeat("x", 8<<10) + `"}}`, status: 400, field: "preferences", code: "too_long"},
		"name of a number": {body: `{"name":7}`, status: 400, field: "name", code: "invalid_type"},
		"SEC-49 role":      {body: `{"role":"admin"}`, status: 400, field: "role", code: "unknown_field"},
		"SEC-49 email":     {body: `{"email":"x@example.com"}`, status: 400, field: "email", code: "unknown_field"},
		"SEC-49 user id":   {body: `{"userId":"x"}`, status: 400, field: "userId", code: "unknown_field"},
	} {
		t.Run(name, func(t *testing.T) {
			a := s.do(me, "PATCH", "/me", tc.body)
			if a.status != tc.status || tc.code != "" && (len(a.Errors) != 1 || a.Errors[0].Field != tc.field || a.Errors[0].Code != tc.code) {
				t.Errorf("= %d %s %+v, want %d %s for %s", a.status, a.Code, a.Errors, tc.status, tc.code, tc.field)
			}
		})
	}
	a := s.want(s.do(me, "PATCH", "/me", `{"name":" Zoë ","bio":"Two\r\n\tlines ","locale":"de-ch","timezone":"Europe/Zurich","preferences":{"b":1,"a":[1.50]}}`), 200)
	p := a.profile(t)
	if p.Name != "Zoë" || p.Bio != "Two\r\n\tlines " || p.Locale != "de-CH" || p.Timezone != "Europe/Zurich" || string(p.Preferences) != `{"a":[1.50],"b":1}` {
		t.Errorf("profile = %+v %s", p, p.Preferences)
	}
	tag := a.header.Get("ETag")
	if again := s.want(s.do(me, "PATCH", "/me", `{"name":"Zoë","preferences":{"a":[1.50],"b":1}}`), 200); again.header.Get("ETag") != tag {
		t.Errorf("a change without effect made version %s of %s", again.header.Get("ETag"), tag)
	}
	if a := s.do(me, "PATCH", "/me", `{"bio":"x"}`, "If-Match", `"999"`); a.status != 412 || a.Code != "precondition_failed" {
		t.Errorf("If-Match of another version = %d %s", a.status, a.Code)
	}
	s.want(s.do(me, "PATCH", "/me", `{"bio":"x"}`, "If-Match", tag), 200)
	if a := s.do(me, "PATCH", "/me", `{"bio":"y"}`, "If-Match", tag); a.status != 412 {
		t.Errorf("If-Match of the version before = %d", a.status)
	}
	current := s.want(s.do(me, "GET", "/me", ""), 200).header.Get("ETag")
	s.want(s.do(me, "GET", "/me", "", "If-None-Match", current), http.StatusNotModified)
}

// TestMergePatch: a JSON merge patch changes only the preferences that it names, at every
// level; JSON of no such type replaces them.
func TestMergePatch(t *testing.T) {
	t.Parallel()
	s := newService(t, testkit.RedisURL(t))
	me := newUser()
	const merge = "application/merge-patch+json"
	for _, step := range []struct {
		contentType, preferences, want string
		status                         int
	}{
		{"application/json", `{"theme":{"dark":true,"size":1},"list":[1,2]}`, `{"list":[1,2],"theme":{"dark":true,"size":1}}`, 200},
		{merge, `{"theme":{"size":null,"font":{"a":null,"b":1}},"list":[3,null]}`, `{"list":[3,null],"theme":{"dark":true,"font":{"b":1}}}`, 200},
		{merge + "; charset=utf-8", `{"theme":"plain"}`, `{"list":[3,null],"theme":"plain"}`, 200},
		{merge, `[]`, "", 400},
		{merge, `{"x":"` + strings.Repeat("x", 8170) + `"}`, "", 400}, // together too long
		{merge, `{"list":null,"n":1.50}`, `{"n":1.50,"theme":"plain"}`, 200},
		{"application/json", `{"a":null}`, `{"a":null}`, 200},
		{merge, `null`, `{}`, 200},
	} {
		a := s.do(me, "PATCH", "/me", `{"preferences":`+step.preferences+`}`, "Content-Type", step.contentType)
		if a.status != step.status || a.status == 200 && string(a.profile(t).Preferences) != step.want {
			t.Errorf("%s %.60s = %d %s, want %d %s", step.contentType, step.preferences, a.status, a.Data, step.status, step.want)
		}
	}
}

// TestSEC68Cache: a garbage entry counts as none.
func TestSEC68Cache(t *testing.T) {
	t.Parallel()
	s := newService(t, testkit.RedisURL(t))
	me, admin := newUser(), token.Identity{Role: token.RoleAdmin}
	source := func() string { return s.want(s.do(me, "GET", "/me", ""), 200).header.Get("X-Cache") }
	wantSources := func(when string, want ...string) {
		t.Helper()
		for i, w := range want {
			if got := source(); got != w {
				t.Errorf("%s: read %d came from %s, want %s", when, i+1, got, w)
			}
		}
	}
	key := "user:profile:v1:" + me.UserID
	wantSources("at first", "MISS", "HIT", "HIT")
	if ttl := s.redis.TTL(t.Context(), key).Val(); ttl < 500*time.Second || ttl > 700*time.Second {
		t.Errorf("TTL = %s", ttl)
	}
	s.want(s.do(me, "PATCH", "/me", `{"bio":"new"}`), 200)
	s.wantAcknowledged() // The event of the change invalidates once more.
	wantSources("after a change", "MISS", "HIT")
	s.publish(me.UserID, time.Now(), event.UserLoggedOut{SessionID: "s"})
	s.wantAcknowledged()
	wantSources("after a logout", "MISS", "HIT")
	s.want(s.do(admin, "DELETE", "/"+me.UserID+"/cache", ""), 200)
	wantSources("after an administrator dropped the entry", "MISS", "HIT")
	for _, garbage := range []string{"junk", "[]", `{"version":9}`, `{"version":1,"profile":{"userId":"somebody else"}}`} {
		if err := s.redis.Set(t.Context(), key, garbage, time.Minute).Err(); err != nil {
			t.Fatal(err)
		}
		if p := s.want(s.do(me, "GET", "/me", ""), 200).profile(t); p.Bio != "new" || p.UserID != me.UserID {
			t.Errorf("SEC-68: with %s in the cache: %+v", garbage, p)
		}
	}
}

// TestREL26NeverStale is REL-26: readers race with a writer. A reader that has seen the
// answer to a change never sees an older profile.
func TestREL26NeverStale(t *testing.T) {
	t.Parallel()
	s := newService(t, testkit.RedisURL(t))
	me := newUser()
	s.want(s.do(me, "GET", "/me", ""), 200)
	var mu sync.Mutex
	written := 0
	known := func() int { mu.Lock(); defer mu.Unlock(); return written }
	ctx, cancel := context.WithCancel(t.Context())
	var readers sync.WaitGroup
	for range 8 {
		readers.Go(func() {
			for ctx.Err() == nil {
				before := known()
				var seen int
				bio := s.do(me, "GET", "/me", "").profile(t).Bio
				if _, err := fmt.Sscan(bio, &seen); err != nil && before > 0 || seen < before {
					t.Errorf("read %q after %d was written", bio, before)
				}
			}
		})
	}
	for i := range 40 {
		s.want(s.do(me, "PATCH", "/me", fmt.Sprintf(`{"bio":"%d"}`, i+1)), 200)
		mu.Lock()
		written = i + 1
		mu.Unlock()
	}
	cancel()
	readers.Wait()
}

// TestRedisUnavailable: without Redis, reads are slower but never stale.
func TestRedisUnavailable(t *testing.T) {
	t.Parallel()
	options := localserver.Options{Dir: filepath.Join(t.TempDir(), "redis"), Durable: true}
	server, err := localserver.StartRedis(t.Context(), options)
	if err != nil {
		t.Fatal(err)
	}
	s := newService(t, server.URL)
	me := newUser()
	s.want(s.do(me, "PATCH", "/me", `{"bio":"before"}`), 200)
	s.wantAcknowledged()
	s.want(s.do(me, "GET", "/me", ""), 200)
	if err := server.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.want(s.do(me, "PATCH", "/me", `{"bio":"while unavailable"}`), 200)
	for range 20 {
		start := time.Now()
		if p := s.want(s.do(me, "GET", "/me", ""), 200).profile(t); p.Bio != "while unavailable" {
			t.Errorf("bio = %q", p.Bio)
		}
		if took := time.Since(start); took > 20*time.Second {
			t.Errorf("GET took %s", took)
		}
	}
	options.Port = server.Port
	if server, err = localserver.StartRedis(t.Context(), options); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := server.Stop(context.Background()); err != nil {
			t.Error(err)
		}
	}()
	for range 20 {
		// Redis has the old entry again until the event of the change arrives.
		if p := s.want(s.do(me, "GET", "/me", ""), 200).profile(t); p.Bio != "while unavailable" {
			t.Fatalf("bio = %q: the cache returned an older version", p.Bio)
		}
	}
	testkit.Eventually(t, func() error {
		if a := s.do(me, "GET", "/me", ""); a.header.Get("X-Cache") != "HIT" {
			return errors.New("the cache is still not used")
		}
		return nil
	})
}

// TestSEC50WhoMaySeeWhom is SEC-50.
func TestSEC50WhoMaySeeWhom(t *testing.T) {
	t.Parallel()
	s := newService(t, testkit.RedisURL(t))
	me, other, admin := newUser(), newUser(), token.Identity{Role: token.RoleAdmin}
	s.want(s.do(me, "GET", "/me", ""), 200)
	s.want(s.do(other, "GET", "/me", ""), 200)
	for _, tc := range []struct {
		caller       token.Identity
		method, path string
		want         int
	}{
		{token.Identity{}, "GET", "/me", 401},
		{token.Identity{}, "GET", "/" + me.UserID, 401},
		{me, "GET", "/" + me.UserID, 200},
		{me, "GET", "/" + strings.ToUpper(me.UserID), 404},
		{admin, "GET", "/" + strings.ToUpper(other.UserID), 404},
		{admin, "DELETE", "/" + strings.ToUpper(other.UserID) + "/cache", 404},
		{admin, "GET", "/urn:uuid:" + other.UserID, 404},
		{admin, "GET", "/?cursor=" + cursor(strings.ToUpper(other.UserID)), 400},
		{admin, "GET", "/?cursor=" + cursor("urn:uuid:"+other.UserID), 400},
		{me, "GET", "/" + other.UserID, 403},
		{me, "GET", "/" + uuid.NewString(), 403},
		{admin, "GET", "/" + other.UserID, 200},
		{admin, "GET", "/" + uuid.NewString(), 404},
		{me, "GET", "/-1", 404},
		{me, "GET", "/%00", 404},
		{me, "PATCH", "/" + other.UserID, 405},
		{me, "GET", "/", 403},
		{admin, "GET", "/?q=ANN", 200},
		{admin, "GET", "?q=ann", 200},
		{admin, "GET", "/?q=%00", 400},
		{admin, "GET", "/?q=nobody%", 400},
		{admin, "GET", "/?q=" + strings.Repeat("%C3%A4", 100), 200},
		{admin, "GET", "/?q=" + strings.Repeat("%C3%A4", 101), 400},
		{me, "DELETE", "/" + me.UserID + "/cache", 403},
		{admin, "DELETE", "/junk/cache", 404},
		{me, "GET", "/dead-letters", 403},
		{admin, "GET", "/dead-letters", 200},
	} {
		if a := s.do(tc.caller, tc.method, tc.path, ""); a.status != tc.want {
			t.Errorf("%s %s as %q = %d %s, want %d", tc.method, tc.path, tc.caller.Role, a.status, a.Code, tc.want)
		}
	}
	a, b := s.do(me, "GET", "/"+other.UserID, ""), s.do(me, "GET", "/"+uuid.NewString(), "")
	if a.Code != b.Code {
		t.Errorf("another user's profile = %s, a profile that does not exist = %s", a.Code, b.Code)
	}
	first := s.want(s.do(admin, "GET", "/?limit=1", ""), 200)
	second := s.want(s.do(admin, "GET", "/?limit=1&cursor="+first.Meta.NextCursor, ""), 200)
	if !first.Meta.HasMore || second.Meta.HasMore || string(first.Data) == string(second.Data) {
		t.Errorf("pages = %s, %s", first.Data, second.Data)
	}
}

func cursor(key string) string { return base64.RawURLEncoding.EncodeToString([]byte(key)) }

// TestMalformedEntryAndFlush: the consumer survives an entry that is not a message, and
// the loss of its stream and group.
func TestMalformedEntryAndFlush(t *testing.T) {
	t.Parallel()
	s := newService(t, testkit.RedisURL(t))
	if err := s.redis.XAdd(t.Context(), &redis.XAddArgs{Stream: string(event.User), Values: []string{"junk", "1"}}).Err(); err != nil {
		t.Fatal(err)
	}
	project := func() {
		t.Helper()
		id := uuid.NewString()
		s.publish(id, time.Now(), event.UserSignedUp{Email: "x@example.com", Name: "X"})
		testkit.Eventually(t, func() error {
			if a := s.do(token.Identity{Role: token.RoleAdmin}, "GET", "/"+id, ""); a.status != 200 {
				return fmt.Errorf("the profile does not exist: %d", a.status)
			}
			return nil
		})
	}
	project()
	testkit.Eventually(t, func() error {
		var deadLetters []deadletter.DeadLetter
		if err := json.Unmarshal(s.do(token.Identity{Role: token.RoleAdmin}, "GET", "/dead-letters", "").Data, &deadLetters); err != nil || len(deadLetters) != 1 {
			return errors.Join(fmt.Errorf("dead letters = %+v", deadLetters), err)
		}
		return nil
	})
	if err := s.redis.FlushDB(t.Context()).Err(); err != nil {
		t.Fatal(err)
	}
	project()
}
