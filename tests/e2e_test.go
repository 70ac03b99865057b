package tests

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/redis/go-redis/v9"

	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/pkg/testkit"
)

// TestMainPath is the main use: sign up, verify the address, sign in, change the profile
// and sign out. The audit log has each event exactly once.
func TestMainPath(t *testing.T) {
	t.Parallel()
	c, email := newClient(t), newEmail()
	started := time.Now()
	me := c.signup(email)
	first := c.tokens
	if me.Email != email || me.Role != "user" || me.EmailVerified {
		t.Errorf("user = %+v", me)
	}
	var profile struct{ UserID, Email, Name string }
	c.do(http.StatusOK, "GET /api/v1/user/me", nil, &profile) // before any event has arrived
	if profile.UserID != me.ID || profile.Email != email || profile.Name != "Ada" {
		t.Errorf("profile = %+v", profile)
	}

	link := awaitLink(t, email)
	t.Logf("mail after %s", time.Since(started))
	address, err := url.Parse(link)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(link, c.gateway+"/") && address.Port() != mustURL(t, c.gateway).Port() {
		t.Errorf("the link leads to %s, the gateway is %s", address.Host, c.gateway)
	}
	page := getPage(t, c.gateway+address.RequestURI())
	if !strings.Contains(page, "<form") {
		t.Errorf("the landing page has no form:\n%s", page)
	}
	var verified struct{ User user }
	c.do(http.StatusOK, "POST /api/v1/auth/verify-email", object{"token": address.Query().Get("token")}, &verified)
	if !verified.User.EmailVerified {
		t.Errorf("verified user = %+v", verified.User)
	}
	c.do(http.StatusBadRequest, "POST /api/v1/auth/verify-email", object{"token": address.Query().Get("token")}, nil)

	c.login(email, goodPassword)
	a := c.do(http.StatusOK, "PATCH /api/v1/user/me", object{"bio": "Counts."}, nil)
	var patched struct{ Bio string }
	if got := c.do(http.StatusOK, "GET /api/v1/user/me", nil, &patched); patched.Bio != "Counts." || got.header.Get("ETag") != a.header.Get("ETag") {
		t.Errorf("after PATCH: %+v, ETag %s, want %s", patched, got.header.Get("ETag"), a.header.Get("ETag"))
	}
	if again := c.do(http.StatusOK, "GET /api/v1/user/me", nil, nil); again.header.Get("X-Cache") != "HIT" {
		t.Errorf("X-Cache = %q, want HIT", again.header.Get("X-Cache"))
	}
	refreshed := c.do(http.StatusOK, "POST /api/v1/auth/refresh", object{"refreshToken": c.tokens.RefreshToken}, &struct{ Tokens *tokens }{&c.tokens})
	if refreshed.header.Get("X-Refresh-Outcome") != "rotated" {
		t.Errorf("X-Refresh-Outcome = %q", refreshed.header.Get("X-Refresh-Outcome"))
	}
	var sessions []struct{ ID string }
	c.do(http.StatusOK, "GET /api/v1/auth/sessions", nil, &sessions)
	if len(sessions) != 2 {
		t.Errorf("%d sessions, want 2", len(sessions))
	}
	c.do(http.StatusOK, "POST /api/v1/auth/logout", nil, nil)
	c.do(http.StatusUnauthorized, "POST /api/v1/auth/refresh", object{"refreshToken": c.tokens.RefreshToken}, nil)

	want := map[string]int{
		"user.signed_up": 1, "email.sent": 1, "user.email_verified": 1, "request.refused": 1, "user.logged_in": 1,
		"user.profile_updated": 1, "session.refreshed": 1, "user.logged_out": 1,
	}
	wantAudit(t, me.ID, want)

	c.tokens = first // Its session was not signed out.
	var feed []auditEvent
	c.do(http.StatusOK, "GET /api/v1/audit/me", nil, &feed)
	if len(feed) == 0 {
		t.Error("the caller's audit feed is empty")
	}
}

// wantAudit waits until the audit log has exactly these events of a subject.
func wantAudit(t *testing.T, subject string, want map[string]int) {
	t.Helper()
	newAdmin(t).wantAudit(subject, want)
}

// wantAudit does the same for an administrator of any system.
func (c *client) wantAudit(subject string, want map[string]int) {
	c.t.Helper()
	testkit.Eventually(c.t, func() error {
		events, err := c.audit(subject)
		if err != nil {
			return err
		}
		got := map[string]int{}
		for _, e := range events {
			got[e.Type]++
			if e.SubjectID != subject || e.IP == "" && e.Actor.Type == "user" {
				c.t.Errorf("event = %+v", e)
			}
		}
		if !maps.Equal(got, want) {
			return fmt.Errorf("the audit log has %v, want %v", got, want)
		}
		return nil
	})
}

func mustURL(t *testing.T, s string) *url.URL {
	t.Helper()
	u, err := url.Parse(s)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

func getPage(t *testing.T, address string) string {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, address, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	res, err := httpClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	page, err := readAll(t.Context(), res.Body)
	if err != nil || res.StatusCode != http.StatusOK || !strings.HasPrefix(res.Header.Get("Content-Type"), "text/html") {
		t.Fatalf("%s = %s %v", address, res.Status, err)
	}
	for _, header := range []string{"X-Request-Id", "Content-Security-Policy", "Cache-Control", "X-Content-Type-Options"} {
		if values := res.Header.Values(header); len(values) != 1 {
			t.Errorf("%s = %q, want one value", header, values)
		}
	}
	return string(page)
}

// TestAccessThroughTheGateway checks the access of each role to each route.
func TestAccessThroughTheGateway(t *testing.T) {
	t.Parallel()
	anonymous, someone, admin := newClient(t), newClient(t), newAdmin(t)
	someone.signup(newEmail())
	forged := &client{t: t, gateway: anonymous.gateway, tokens: tokens{AccessToken: someone.tokens.AccessToken + "x"}}
	for path, want := range map[string][4]int{ // anonymous, forged, user, admin
		"/api/v1/user/me":            {401, 401, 200, 200},
		"/api/v1/auth/sessions":      {401, 401, 200, 200},
		"/api/v1/audit/me":           {401, 401, 200, 200},
		"/api/v1/audit/events":       {401, 401, 403, 200},
		"/api/v1/audit/dead-letters": {401, 401, 403, 200},
		"/api/v1/email/messages":     {401, 401, 403, 200},
		"/api/v1/email/dead-letters": {401, 401, 403, 200},
		"/api/v1/user/dead-letters":  {401, 401, 403, 200},
		"/api/v1/nothing":            {404, 404, 404, 404},
		"/metrics":                   {404, 404, 404, 404},
		"/internal/x":                {404, 404, 404, 404},
	} {
		for i, c := range []*client{anonymous, forged, someone, admin} {
			a, err := c.try("GET", path, nil)
			if err != nil || a.status != want[i] {
				t.Errorf("GET %s by caller %d = %d %s, %v, want %d", path, i, a.status, a.Code, err, want[i])
			}
			if a.status >= 400 && (a.RequestID == "" || a.RequestID != a.header.Get("X-Request-Id") || a.Code == "") {
				t.Errorf("GET %s: the error has no envelope: %+v", path, a)
			}
		}
	}
}

func TestLoginLimit(t *testing.T) {
	t.Parallel()
	c, email := newClient(t), newEmail()
	c.signup(email)
	for i := range 7 {
		a, err := c.try("POST", "/api/v1/auth/login", object{"email": email, "password": "not the password"})
		if err != nil {
			t.Fatal(err)
		}
		want := http.StatusUnauthorized
		if i >= 5 {
			want = http.StatusTooManyRequests
		}
		if a.status != want {
			t.Errorf("login %d = %d %s, want %d", i+1, a.status, a.Code, want)
		}
		if a.header.Get("RateLimit") == "" || a.header.Get("RateLimit-Policy") == "" || a.header.Get("X-RateLimit-Limit") != "5" {
			t.Errorf("login %d: headers %v", i+1, a.header)
		}
		if want == http.StatusTooManyRequests && a.header.Get("Retry-After") == "" {
			t.Errorf("login %d: no Retry-After", i+1)
		}
	}
}

func TestHealth(t *testing.T) {
	t.Parallel()
	c := newClient(t)
	testkit.Eventually(t, func() error {
		var health struct {
			Status   string            `json:"status"`
			Services map[string]string `json:"services"`
		}
		c.do(http.StatusOK, "GET /health", nil, &health)
		if health.Status != "ok" || len(health.Services) != 4 {
			return fmt.Errorf("health = %+v", health)
		}
		return nil
	})
}

// TestKilledEmailService kills email-service during 50 sign-ups: each mail arrives once.
// SMTP leaves one gap, between the server's answer and our commit: a mail that is killed
// there is sent twice, with the same Message-ID.
func TestKilledEmailService(t *testing.T) {
	c := newClient(t)
	emails, twice := make([]string, 50), false
	var wg sync.WaitGroup
	turn := make(chan struct{}, 8)
	for i := range emails {
		emails[i] = newEmail()
		wg.Go(func() {
			turn <- struct{}{}
			defer func() { <-turn }()
			(&client{t: t, gateway: c.gateway}).signup(emails[i])
		})
		if i == 20 || i == 40 {
			kill(t, "email-service")
		}
	}
	wg.Wait()
	testkit.Eventually(t, func() error {
		for _, email := range emails {
			mails, err := inbox(t, email)
			if err != nil {
				return err
			}
			if len(mails) == 0 {
				return fmt.Errorf("no mail to %s", email)
			}
			if len(mails) > 2 || len(mails) == 2 && mails[0].MessageID != mails[1].MessageID {
				t.Fatalf("mails to %s: %+v", email, mails)
			}
			twice = len(mails) == 2 || twice
		}
		return nil
	})
	if twice {
		t.Log("email-service was killed between the mail server's answer and the commit")
	}
}

// kill sends SIGKILL to a child and waits until the launcher has restarted it.
func kill(t *testing.T, name string) {
	t.Helper()
	pid := facts(t).PIDs[name]
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatalf("kill %s: %v", name, err)
	}
	testkit.Eventually(t, func() error {
		if now := facts(t).PIDs[name]; now == pid || now == 0 {
			return fmt.Errorf("%s was not restarted", name)
		}
		return nil
	})
}

// TestMalformedEntriesAndAFlush adds malformed entries to every stream and then empties
// Redis. The mail and the audit records of the next sign-up arrive regardless.
func TestMalformedEntriesAndAFlush(t *testing.T) {
	admin := newAdmin(t)
	options, err := redis.ParseURL(facts(t).RedisURL)
	if err != nil {
		t.Fatal(err)
	}
	direct := redis.NewClient(options)
	defer direct.Close()
	want := admin.listen("?channels=dead_letters")
	want("connection.opened")
	for _, topic := range []event.Topic{event.Email, event.Audit, event.User} {
		if err := direct.XAdd(t.Context(), &redis.XAddArgs{Stream: string(topic), Values: []string{"junk", "1"}}).Err(); err != nil {
			t.Fatal(err)
		}
	}
	for reported := map[string]bool{}; len(reported) < 3; {
		var added struct{ Service string }
		if err := json.Unmarshal(want("dead_letter.added"), &added); err != nil {
			t.Fatal(err)
		}
		reported[added.Service] = true
	}
	for _, service := range []string{"email", "audit", "user"} {
		testkit.Eventually(t, func() error {
			var deadLetters []struct{ Stream, Class, Status string }
			admin.do(http.StatusOK, "GET /api/v1/"+service+"/dead-letters", nil, &deadLetters)
			if len(deadLetters) == 0 || deadLetters[0].Class != "permanent" {
				return fmt.Errorf("dead letters of %s-service = %+v", service, deadLetters)
			}
			return nil
		})
	}
	wantWorking(t)
	waitForOutboxes(t)
	if err := direct.FlushAll(t.Context()).Err(); err != nil {
		t.Fatal(err)
	}
	wantWorking(t)
}

func wantWorking(t *testing.T) {
	t.Helper()
	c, email := newClient(t), newEmail()
	me := c.signup(email)
	awaitLink(t, email)
	wantAudit(t, me.ID, map[string]int{"user.signed_up": 1, "email.sent": 1})
}

// waitForOutboxes waits until every event is published. This test does not check that
// events which a flush destroys are published again.
func waitForOutboxes(t *testing.T) {
	t.Helper()
	urls := facts(t).DatabaseURLs
	for _, service := range []string{"auth", "user", "email"} {
		conn, err := pgx.Connect(t.Context(), urls[service])
		if err != nil {
			t.Fatal(err)
		}
		testkit.Eventually(t, func() error {
			var left int
			err := conn.QueryRow(t.Context(), `SELECT count(*) FROM outbox WHERE published_at IS NULL`).Scan(&left)
			if err == nil && left > 0 {
				err = fmt.Errorf("%d events wait in the outbox of %s-service", left, service)
			}
			return err
		})
		if err := conn.Close(context.WithoutCancel(t.Context())); err != nil {
			t.Error(err)
		}
	}
}

// TestKilledServices kills each service once. The launcher restarts it, and the system
// works.
func TestKilledServices(t *testing.T) {
	for _, name := range slices.Sorted(maps.Keys(facts(t).PIDs)) {
		if name != "gateway" && !strings.HasSuffix(name, "-service") {
			continue
		}
		kill(t, name)
	}
	c := newClient(t)
	testkit.Eventually(t, func() error {
		a, err := c.try("GET", "/readyz", nil)
		if err == nil && a.status != http.StatusOK {
			err = fmt.Errorf("gateway is not ready: %d", a.status)
		}
		return err
	})
	testkit.Eventually(t, func() error {
		var health struct{ Status string }
		if a, err := c.try("GET", "/health", nil); err != nil || a.status != http.StatusOK {
			return fmt.Errorf("health = %d, %w", a.status, err)
		}
		c.do(http.StatusOK, "GET /health", nil, &health)
		if health.Status != "ok" {
			return fmt.Errorf("health = %s", health.Status)
		}
		return nil
	})
	wantWorking(t)
}
