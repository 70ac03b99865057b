package api_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/headgate/headgate/pkg/testkit"
	"github.com/headgate/headgate/pkg/web"
	"github.com/headgate/headgate/services/gateway/internal/api"
	"github.com/headgate/headgate/services/gateway/internal/ratelimit"
	"github.com/headgate/headgate/services/gateway/internal/upstream"
)

func TestSEC41And43Routes(t *testing.T) {
	t.Parallel()
	g := newGateway(t, testkit.Redis(t), api.RateLimits{})
	for _, tc := range []struct {
		method, path, token, code string
		status                    int
	}{
		{"POST", "/api/v1/auth/signup", "", "", 200},
		{"POST", "/api/v1/auth/refresh", "Bearer stale", "", 200},
		{"GET", "/.well-known/jwks.json", "", "", 200},
		{"GET", "/.well-known/webauthn", "", "", 200},
		{"GET", "/.well-known/other", "", "not_found", 404},
		{"GET", "/api/v1/user/me", "", "unauthenticated", 401},
		{"GET", "/api/v1/user/me", "Bearer junk", "token_invalid", 401},
		{"GET", "/api/v1/user/me", "Basic junk", "unauthenticated", 401},
		{"GET", "/api/v1/user/me", "good", "", 200},
		{"GET", "/api/v1/user", "good", "", 200},
		{"GET", "/api/v1/email/messages", "", "unauthenticated", 401},
		{"GET", "/api/v1/audit/me", "good", "", 200},
		{"GET", "/api/v1/users", "good", "not_found", 404},
		{"GET", "/api/v2/user/me", "good", "not_found", 404},
		{"GET", "/", "", "not_found", 404},
		{"GET", "/metrics", "", "not_found", 404},
		{"GET", "/internal/x", "", "not_found", 404},
		{"GET", "/debug/pprof/", "", "not_found", 404},
		{"GET", "/livez", "", "", 200},
		{"POST", "/health", "", "method_not_allowed", 405},
		{"TRACE", "/api/v1/user/me", "good", "method_not_allowed", 405},
		{"GE", "/api/v1/user/me", "good", "method_not_allowed", 405},
	} {
		var header []string
		switch tc.token {
		case "":
		case "good":
			header = []string{"Authorization", g.bearer()}
		default:
			header = []string{"Authorization", tc.token}
		}
		a := g.do(tc.method, tc.path, "", header...)
		if a.status != tc.status || a.Code != tc.code {
			t.Errorf("%s %s with %q = %d %s, want %d %s", tc.method, tc.path, tc.token, a.status, a.Code, tc.status, tc.code)
		}
		challenge := map[string]string{"unauthenticated": "Bearer", "token_invalid": `Bearer error="invalid_token"`}[tc.code]
		if got := a.header.Get("WWW-Authenticate"); got != challenge {
			t.Errorf("%s %s with %q: WWW-Authenticate = %q, want %q", tc.method, tc.path, tc.token, got, challenge)
		}
		if tc.status == 405 && a.header.Get("Allow") == "" {
			t.Errorf("%s %s: no Allow", tc.method, tc.path)
		}
	}
}

// TestSEC42Paths is SEC-42: an ambiguous path is rejected, never redirected.
func TestSEC42Paths(t *testing.T) {
	t.Parallel()
	g := newGateway(t, testkit.Redis(t), api.RateLimits{})
	for _, path := range []string{
		"//api/v1/user/me", "/api//v1/user/me", "/api/v1/./user/me", "/api/v1/auth/../user/me", "/api/v1/auth/%2e%2e/user/me",
		"/api/v1/auth%2f..%2fuser/me", "/api/v1/auth/..%2fuser/me", "/api/v1/auth/%5c../user/me", "/api/v1/auth/%252e%252e/user/me",
		"/api/v1/auth/;/user/me", "/api/v1/user/me;x", "/api/v1/user/me%00", "/api/v1/%75ser/me", "/api/v1/auth/..", "/api/v1/auth/.",
		"/api/v1/user/%c0%ae%c0%ae/me", "/api/v1/user/me%0d%0aX:y", "/api/v1/user/me%3fx=1", "/api/v1/user/me%23x",
	} {
		for _, method := range []string{"GET", "POST"} {
			if a := g.do(method, path, "", "Authorization", g.bearer()); a.status != 400 || a.Code != "invalid_path" {
				t.Errorf("%s %s = %d %s, want 400 invalid_path", method, path, a.status, a.Code)
			}
		}
	}
	if _, _, hits := g.upstream.got(); hits != 0 {
		t.Errorf("the services got %d of these requests", hits)
	}
	for _, path := range []string{"/API/v1/user/me", "/api/v1/USER/me"} {
		if a := g.do("GET", path, ""); a.status != 404 {
			t.Errorf("GET %s = %d", path, a.status)
		}
	}
}

// TestSEC38To40Headers is SEC-38 to SEC-40: no header of a client passes for the gateway's,
// and naming the gateway's own headers in Connection does not remove them.
func TestSEC38To40Headers(t *testing.T) {
	t.Parallel()
	g := newGateway(t, testkit.Redis(t), api.RateLimits{})
	bearer := g.bearer()
	a := g.do("GET", "/api/v1/user/me?q=1", "",
		"Authorization", bearer, "X-Request-Id", "request-1234", "Connection", "X-Request-Id, Authorization, X-Forwarded-For, Traceparent",
		"X-Forwarded-For", "1.2.3.4", "X-Real-Ip", "1.2.3.4", "Forwarded", "for=1.2.3.4", "X-User-Id", "root", "X_User_Id", "root",
		"X-Internal-Token", "x", "X-Forwarded-Host", "evil", "X-Http-Method-Override", "DELETE", "X-Original-Url", "/admin", "X-Custom", "kept")
	if a.status != 200 || a.body != "from the service" {
		t.Fatalf("= %d %s", a.status, a.body)
	}
	got, _, _ := g.upstream.got()
	for name, want := range map[string]string{
		"Authorization": bearer, "X-Request-Id": "request-1234", "X-Forwarded-For": "127.0.0.1", "X-Forwarded-Proto": "http",
		"X-Real-Ip": "", "Forwarded": "", "X-User-Id": "", "X_user_id": "", "X-Internal-Token": "",
		"X-Http-Method-Override": "", "X-Original-Url": "", "X-Custom": "kept",
	} {
		if values := got.Header.Values(name); strings.Join(values, "|") != want {
			t.Errorf("the service got %s: %q, want %q", name, values, want)
		}
	}
	if got.Header.Get("X-Forwarded-Host") == "evil" || got.Header.Get("Traceparent") == "" || got.URL.RawQuery != "q=1" {
		t.Errorf("the service got %v %s", got.Header, got.URL)
	}
	for name, want := range map[string][]string{
		"X-Request-Id": {"request-1234"}, "Content-Security-Policy": {"default-src 'self'"}, "X-Content-Type-Options": {"nosniff"}, "X-Powered-By": nil,
	} {
		if values := a.header.Values(name); !slices.Equal(values, want) {
			t.Errorf("the client got %s: %q, want %q", name, values, want)
		}
	}
}

func TestBodies(t *testing.T) {
	t.Parallel()
	g := newGateway(t, testkit.Redis(t), api.RateLimits{Login: ratelimit.Rate{Requests: 100, Window: time.Minute}})
	login := `{"email":"a@example.com","password":"x"}`
	g.do("POST", "/api/v1/auth/login", login)
	if _, body, _ := g.upstream.got(); body != login {
		t.Errorf("the service got the body %q", body)
	}
	long := strings.Repeat("x", web.MaxBody+1)
	for _, path := range []string{"/api/v1/auth/login", "/api/v1/auth/signup"} {
		if a := g.do("POST", path, long); a.status != 413 || a.Code != "body_too_large" {
			t.Errorf("POST %s of %d bytes = %d %s", path, len(long), a.status, a.Code)
		}
	}
	// Without a length the size is known only after reading.
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, g.URL+"/api/v1/auth/signup", io.MultiReader(bytes.NewReader([]byte(long))))
	if err != nil {
		t.Fatal(err)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if res.StatusCode != http.StatusRequestEntityTooLarge {
		t.Errorf("chunked = %d", res.StatusCode)
	}
	if a := g.do("POST", "/api/v1/auth/signup", "x", "Content-Encoding", "gzip"); a.status != 415 {
		t.Errorf("SEC-47: compressed = %d", a.status)
	}
}

func TestServicesThatFail(t *testing.T) {
	t.Parallel()
	g := newGateway(t, testkit.Redis(t), api.RateLimits{})
	if a := g.do("GET", "/api/v1/user/hangup", "", "Authorization", g.bearer()); a.status != 502 || a.Code != "bad_gateway" || a.header.Get("Retry-After") == "" {
		t.Errorf("of a service that hangs up = %d %s", a.status, a.body)
	}
	withoutWait := gatewayTo(t, g.upstream.URL, func(s *setup) { s.upstream.Wait = 0 })
	g.upstream.Close()
	if res, text := send(t, "GET", withoutWait+"/api/v1/user/me", http.NoBody); res.StatusCode != http.StatusServiceUnavailable || !strings.Contains(text, `"code":"service_unavailable"`) || strings.Contains(text, "127.0.0.1") {
		t.Errorf("with the service unavailable = %d %s", res.StatusCode, text)
	}
}

func TestHealth(t *testing.T) {
	t.Parallel()
	g := newGateway(t, testkit.Redis(t), api.RateLimits{})
	gone, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	gone.Close()
	server := httptest.NewServer(handlerFor(t, g, testkit.Redis(t), api.RateLimits{}, func(s *setup) {
		s.addresses["email"] = upstream.Addresses{{Scheme: "http", Host: gone.Addr().String()}}
	}))
	defer server.Close()
	g.URL = server.URL
	testkit.Eventually(t, func() error {
		a := g.do("GET", "/health", "")
		var health struct {
			Status, Version string
			Services        map[string]string
		}
		if err := json.Unmarshal(a.Data, &health); err != nil || a.status != 200 {
			t.Fatalf("= %d %s", a.status, a.body)
		}
		want := map[string]string{"auth": "up", "user": "up", "audit": "up", "email": "down"}
		if health.Status != "degraded" || !maps.Equal(health.Services, want) {
			return fmt.Errorf("health = %+v", health)
		}
		return nil
	})
}
