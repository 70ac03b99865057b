package tests

import (
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/jackc/pgx/v5"
)

// TestDeployment starts everything that deploy/ and docker-compose.yml describe, uses it,
// and restarts its Redis. It is also REL-40, with the real writers: no stream, consumer
// group or rate limit is lost, and every event arrives once. And it is the other half of
// SEC-73: Redis denies no service what it needs.
func TestDeployment(t *testing.T) {
	t.Parallel()
	d := startDeployment(t)
	d.wantSeparateDatabases()
	c := d.client()
	email := newEmail()
	me := c.signup(email)
	link, err := url.Parse(awaitLink(t, email))
	if err != nil {
		t.Fatal(err)
	}
	if link.Host != d.public["gateway"] {
		t.Errorf("the link leads to %s, want %s", link.Host, d.public["gateway"])
	}
	c.do(http.StatusOK, "POST /api/v1/auth/verify-email", object{"token": link.Query().Get("token")}, nil)
	c.do(http.StatusOK, "PATCH /api/v1/user/me", object{"bio": "before"}, nil)
	admin := d.admin()
	want := map[string]int{"user.signed_up": 1, "email.sent": 1, "user.email_verified": 1, "user.profile_updated": 1}
	admin.wantAudit(me.ID, want)

	var cleared struct{ Cleared int }
	if admin.do(http.StatusOK, "DELETE /api/v1/auth/rate-limits?userId="+me.ID, nil, &cleared); cleared.Cleared == 0 {
		t.Error("no rate limit of a user with requests was cleared")
	}

	for _, signal := range []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL} {
		d.redis.wantNothingDenied(t)
		before := d.redis.contents(t.Context(), t)
		d.redis.restart(t, signal)
		after := d.redis.contents(t.Context(), t)
		for key, text := range before {
			// Services go on while Redis restarts, so a stream can have grown.
			kind, _, _ := strings.Cut(key, ":")
			if _, ok := after[key]; !ok {
				t.Errorf("%v: %s is gone: %s", signal, key, text)
			}
			if groups := strings.Count(text, "pending"); strings.HasSuffix(kind, "-events") && (entriesIn(t, after[key]) < entriesIn(t, text) || strings.Count(after[key], "pending") != groups) {
				t.Errorf("%v: %s was %s, is %s", signal, key, text, after[key])
			}
		}
		if !slices.ContainsFunc(slices.Collect(maps.Keys(before)), func(key string) bool { return strings.HasPrefix(key, "rl:") }) {
			t.Error("there was no rate limit to lose")
		}
		bio := "after " + signal.String()
		c.do(http.StatusOK, "PATCH /api/v1/user/me", object{"bio": bio}, nil)
		var profile struct{ Bio string }
		if c.do(http.StatusOK, "GET /api/v1/user/me", nil, &profile); profile.Bio != bio {
			t.Errorf("bio = %q, want %q", profile.Bio, bio)
		}
		want["user.profile_updated"]++
		admin.wantAudit(me.ID, want)
	}
	d.stop()
	d.redis.wantNothingDenied(t)
}

func entriesIn(t *testing.T, stream string) (n int) {
	t.Helper()
	if _, err := fmt.Sscanf(stream, "%d entries", &n); err != nil {
		t.Fatalf("%q: %v", stream, err)
	}
	return n
}

// wantSeparateDatabases checks the roles that deploy/postgres/setup.sh makes: each can
// connect to its own database, and to no other one.
func (d *deployment) wantSeparateDatabases() {
	d.t.Helper()
	own := map[string]*url.URL{}
	for _, service := range ownServices {
		if d.environment(service)["DATABASE_URL"] != "" {
			address := d.databaseURL(service)
			own[address.Path] = address
		}
	}
	if len(own) != 4 {
		d.t.Fatalf("%d services have a database, want 4", len(own))
	}
	for path, address := range own {
		for _, database := range append(slices.Collect(maps.Keys(own)), "/postgres", "/template1") {
			other := *address
			other.Path = database
			conn, err := pgx.Connect(d.t.Context(), other.String())
			if err == nil {
				err = conn.Close(d.t.Context())
			}
			if (err == nil) != (path == database) {
				d.t.Errorf("the role %s connects to %s: %v", address.User.Username(), database, err)
			}
		}
	}
}
