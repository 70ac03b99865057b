package tests

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/headgate/headgate/pkg/testkit"
)

// TestRateLimitsRoute: an operator sees which limit a user has reached and clears it. The
// audit log records both.
func TestRateLimitsRoute(t *testing.T) {
	t.Parallel()
	admin, c, email := newAdmin(t), newClient(t), newEmail()
	c.signup(email)
	login := func(password string) int {
		a, err := c.try("POST", "/api/v1/auth/login", object{"email": email, "password": password})
		if err != nil {
			t.Fatal(err)
		}
		return a.status
	}
	for range 5 {
		if got := login("not the password"); got != http.StatusUnauthorized {
			t.Fatalf("login = %d before the limit", got)
		}
	}
	a, err := c.try("POST", "/api/v1/auth/login", object{"email": email, "password": goodPassword})
	if err != nil || a.status != http.StatusTooManyRequests {
		t.Fatalf("login beyond the limit = %d, %v", a.status, err)
	}
	limited := a.RequestID

	route := "/api/v1/auth/rate-limits?" + url.Values{"policy": {"login"}, "ip": {"127.0.0.1"}, "account": {strings.ToUpper(email)}}.Encode()
	for _, method := range []string{"GET", "DELETE"} {
		c.do(http.StatusForbidden, method+" "+route, nil, nil)
		newClient(t).do(http.StatusUnauthorized, method+" "+route, nil, nil)
	}
	type state struct {
		Policy          string
		Used, Remaining int
	}
	shown := func() state {
		var found []state
		admin.do(http.StatusOK, "GET "+route, nil, &found)
		if len(found) != 1 {
			t.Fatalf("shown: %+v", found)
		}
		return found[0]
	}
	if got := shown(); got != (state{"login", 5, 0}) {
		t.Errorf("shown: %+v", got)
	}
	var cleared struct{ Cleared int }
	request := admin.do(http.StatusOK, "DELETE "+route, nil, &cleared).header.Get("X-Request-Id")
	if got := shown(); cleared.Cleared != 1 || got != (state{"login", 0, 5}) {
		t.Errorf("%d cleared; shown: %+v", cleared.Cleared, got)
	}
	if got := login(goodPassword); got != http.StatusOK && got != http.StatusTooManyRequests {
		t.Errorf("login afterwards = %d", got) // auth-service may still throttle the account after so many failed attempts.
	}

	for event, id := range map[string]string{"rate_limit.exceeded": limited, "rate_limit.cleared": request} {
		testkit.Eventually(t, func() error {
			a := admin.do(http.StatusOK, "GET /api/v1/audit/events?"+url.Values{"type": {event}, "requestId": {id}}.Encode(), nil, nil)
			var found []auditEvent
			if err := json.Unmarshal(a.Data, &found); err != nil || len(found) != 1 {
				return fmt.Errorf("records of %s for request %s: %+v, %w", event, id, found, err)
			}
			return nil
		})
	}
}

// TestSEC53CrossSite: another site cannot make a browser change anything here, because a
// browser sends no credentials by itself.
func TestSEC53CrossSite(t *testing.T) {
	t.Parallel()
	c, email := newClient(t), newEmail()
	c.signup(email)
	cookie := "accessToken=" + c.tokens.AccessToken + "; token=" + c.tokens.AccessToken + "; session=" + c.tokens.SessionID
	for _, route := range []string{"PATCH /api/v1/user/me", "POST /api/v1/auth/logout-all", "DELETE /api/v1/auth/account", "GET /api/v1/user/me"} {
		newClient(t).do(http.StatusUnauthorized, route, nil, nil, "Cookie", cookie)
	}
	for _, kind := range []string{"text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"} {
		for _, path := range []string{"/api/v1/auth/login", "/api/v1/auth/signup", "/api/v1/auth/logout", "/api/v1/auth/forgot-password"} {
			req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, c.gateway+path, strings.NewReader(`{"email":"`+email+`"}`))
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set("Content-Type", kind)
			req.Header.Set("Authorization", "Bearer "+c.tokens.AccessToken)
			res, err := httpClient.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			_, err = io.Copy(io.Discard, res.Body)
			res.Body.Close()
			if err != nil || res.StatusCode != http.StatusUnsupportedMediaType {
				t.Errorf("POST %s as %s = %d, %v", path, kind, res.StatusCode, err)
			}
		}
	}
	a := c.do(http.StatusOK, "GET /api/v1/user/me", nil, nil) // The session is still active.
	if got := a.header.Values("Set-Cookie"); len(got) > 0 {
		t.Errorf("cookies: %v", got)
	}
}

// TestSEC56Host: the host in a request does not get into a mail.
func TestSEC56Host(t *testing.T) {
	t.Parallel()
	c, email := newClient(t), newEmail()
	c.signup(email)
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, c.gateway+"/api/v1/auth/forgot-password", strings.NewReader(`{"email":"`+email+`"}`))
	if err != nil {
		t.Fatal(err)
	}
	req.Host = "evil.example"
	for name, value := range map[string]string{
		"Content-Type": "application/json", "X-Forwarded-Host": "evil.example", "X-Forwarded-Proto": "ftp", "Forwarded": "host=evil.example",
		"X-Original-Url": "https://evil.example/", "Origin": "https://evil.example", "Referer": "https://evil.example/",
	} {
		req.Header.Set(name, value)
	}
	res, err := http.DefaultClient.Do(req) // openapi.json has none of these headers, so httpClient would reject them.
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if res.StatusCode != http.StatusAccepted {
		t.Fatalf("= %s", res.Status)
	}
	if link := awaitLinkTo(t, email, "auth/reset-password"); !strings.HasPrefix(link, c.gateway+"/") {
		t.Errorf("the link in the mail leads to %s", link)
	}
	mails, err := inbox(t, email)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range mails {
		if strings.Contains(m.Text+m.HTML, "evil.example") {
			t.Errorf("a mail contains the host: %s", m.Text)
		}
	}
}
