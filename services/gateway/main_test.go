package main

import (
	"bufio"
	"encoding/json"
	"errors"
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
	"github.com/headgate/headgate/pkg/token"
	"github.com/headgate/headgate/pkg/web"
)

func TestMain(m *testing.M) { testkit.ProgramMain(m, main) }

// TestProgram: the program forwards requests to the services, verifies tokens, and
// counts logins in Redis.
func TestProgram(t *testing.T) {
	t.Parallel()
	upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_ = web.OK(w, http.StatusOK, map[string]string{"path": r.URL.Path}) // It always encodes.
	}))
	t.Cleanup(upstream.Close)
	issuer := testkit.NewIssuer(t)
	p := testkit.StartProgram(t, map[string]string{
		"REDIS_URL": testkit.RedisURL(t), "JWKS_URL": issuer.JWKSURL,
		"AUTH_URL": upstream.URL, "USER_URL": upstream.URL, "EMAIL_URL": upstream.URL, "AUDIT_URL": upstream.URL,
		"LOGIN_RATE_LIMIT": "2/15m",
	})
	if status, _ := p.Call("GET", "/api/v1/user/me", "", ""); status != 401 {
		t.Errorf("user/me without a token = %d, want 401", status)
	}
	status, data := p.Call("GET", "/api/v1/user/me", "", issuer.Token(token.Identity{}))
	if status != 200 || !strings.Contains(string(data), "/api/v1/user/me") {
		t.Errorf("user/me = %d %s", status, data)
	}
	for attempt, want := range []int{200, 200, 429} {
		if status, data := p.Call("POST", "/api/v1/auth/login", `{"email":"ann@example.com","password":"x"}`, ""); status != want {
			t.Errorf("login %d = %d %s, want %d", attempt+1, status, data, want)
		}
	}
	if metrics := p.Metrics(); !strings.Contains(metrics, `headgate_limiter_decisions_total{backend="redis",policy="login",result="denied"} 1`) {
		t.Error("the rejected login was not counted in Redis")
	}
	p.Stop()
}

// TestReadyAfterProbes: a ready gateway has seen its services, so /health tells the truth from
// the first request on, and Redis is known to count.
func TestReadyAfterProbes(t *testing.T) {
	t.Parallel()
	slow := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		select {
		case <-time.After(300 * time.Millisecond): // a service that takes its time
		case <-r.Context().Done():
		}
	}))
	t.Cleanup(slow.Close)
	p := testkit.StartProgram(t, map[string]string{
		"REDIS_URL": testkit.RedisURL(t), "JWKS_URL": testkit.NewIssuer(t).JWKSURL,
		"AUTH_URL": slow.URL, "USER_URL": slow.URL, "EMAIL_URL": slow.URL, "AUDIT_URL": "http://127.0.0.1:1",
	})
	status, data := p.Call("GET", "/health", "", "")
	var health struct {
		Status   string
		Services map[string]string
	}
	if err := json.Unmarshal(data, &health); err != nil {
		t.Fatal(err)
	}
	want := map[string]string{"auth": "up", "user": "up", "email": "up", "audit": "down"}
	if status != 200 || health.Status != "degraded" || !maps.Equal(health.Services, want) {
		t.Errorf("the first /health = %d %s", status, data)
	}
	testkit.Eventually(t, func() error { // without a request that is limited
		if !strings.Contains(p.Metrics(), "headgate_limiter_redis_up 1") {
			return errors.New("headgate_limiter_redis_up is not 1")
		}
		return nil
	})
	p.Stop()
}

// Browsers that came by https once never use http again, whatever the answer was.
func TestSEC113EveryResponseSaysHTTPSOnly(t *testing.T) {
	t.Parallel()
	upstream := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(upstream.Close)
	for base, want := range map[string]string{"https://id.example.com": "max-age=63072000", "http://localhost:8080": ""} {
		p := testkit.StartProgram(t, map[string]string{
			"REDIS_URL": testkit.RedisURL(t), "JWKS_URL": testkit.NewIssuer(t).JWKSURL,
			"AUTH_URL": upstream.URL, "USER_URL": upstream.URL, "EMAIL_URL": upstream.URL, "AUDIT_URL": upstream.URL,
			"PUBLIC_BASE_URL": base,
		})
		for request, status := range map[string]int{
			"GET /health HTTP/1.1\r\nHost: x":           200,
			"GET /livez HTTP/1.1\r\nHost: x":            200,
			"GET /docs HTTP/1.1\r\nHost: x":             200,
			"GET /api/v1/user/me HTTP/1.1\r\nHost: x":   401,
			"GET /api/v1/auth/none HTTP/1.1\r\nHost: x": 404,
			"GET //x HTTP/1.1\r\nHost: x":               400,
			"TRACE / HTTP/1.1\r\nHost: x":               405,
			"GET / HTTP/1.1":                            400, // net/http itself rejects it.
		} {
			res := raw(t, p.URL, request+"\r\nConnection: close\r\n\r\n")
			if got := res.Header.Get("Strict-Transport-Security"); res.StatusCode != status || got != want {
				t.Errorf("%s of %s = %d %q, want %d %q", request, base, res.StatusCode, got, status, want)
			}
			if got := res.Header.Get("Cross-Origin-Resource-Policy"); got != "same-origin" && status != 404 {
				t.Errorf("%s: Cross-Origin-Resource-Policy = %q", request, got)
			}
		}
		p.Stop()
	}
}

// raw sends a request as it is written.
func raw(t *testing.T, base, request string) *http.Response {
	t.Helper()
	conn, err := net.Dial("tcp", strings.TrimPrefix(base, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, request); err != nil {
		t.Fatal(err)
	}
	res, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	return res
}

func TestSEC113PlainHTTPIsRefused(t *testing.T) {
	t.Parallel()
	_, log, code := testkit.RunProgram(t, map[string]string{
		"ENV": "production", "REDIS_URL": testkit.RedisURL(t), "JWKS_URL": "http://127.0.0.1:1/",
		"AUTH_URL": "http://127.0.0.1:1", "USER_URL": "http://127.0.0.1:1", "EMAIL_URL": "http://127.0.0.1:1", "AUDIT_URL": "http://127.0.0.1:1",
		"PUBLIC_BASE_URL": "http://id.example.com", "CORS_ORIGINS": "https://app.example.com,http://app.example.com",
	})
	if code != 1 || strings.Count(log, "want https in production") != 2 || !strings.Contains(log, "PUBLIC_BASE_URL") || !strings.Contains(log, "CORS_ORIGINS") {
		t.Errorf("exit code %d, log %s", code, log)
	}
}

func TestMissingConfiguration(t *testing.T) {
	t.Parallel()
	testkit.WantMissing(t, "REDIS_URL", "JWKS_URL", "AUTH_URL", "USER_URL", "EMAIL_URL", "AUDIT_URL")
}

// TestCORSHeadersByDefault: scripts of the allowed origins may send the headers of tracing
// unless CORS_ALLOWED_HEADERS lists others, and those of the API always.
func TestCORSHeadersByDefault(t *testing.T) {
	t.Parallel()
	const origin = "https://app.example.com"
	tracing := []string{"traceparent", "tracestate", "baggage", "sentry-trace", "x-requested-with"}
	gateway := func(extra map[string]string) *testkit.Program {
		environment := map[string]string{
			"REDIS_URL": testkit.RedisURL(t), "JWKS_URL": testkit.NewIssuer(t).JWKSURL, "CORS_ORIGINS": origin,
			"AUTH_URL": "http://127.0.0.1:1", "USER_URL": "http://127.0.0.1:1", "EMAIL_URL": "http://127.0.0.1:1", "AUDIT_URL": "http://127.0.0.1:1",
		}
		maps.Copy(environment, extra)
		return testkit.StartProgram(t, environment)
	}
	want := func(p *testkit.Program, allowed bool, headers ...string) {
		t.Helper()
		r, err := http.NewRequestWithContext(t.Context(), http.MethodOptions, p.URL+"/api/v1/user/me", nil)
		if err != nil {
			t.Fatal(err)
		}
		slices.Sort(headers) // as browsers send them
		r.Header.Set("Origin", origin)
		r.Header.Set("Access-Control-Request-Method", "GET")
		r.Header.Set("Access-Control-Request-Headers", strings.Join(headers, ","))
		res, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if got := res.Header.Get("Access-Control-Allow-Origin") == origin; got != allowed {
			t.Errorf("preflight for %s is allowed: %t, want %t", headers, got, allowed)
		}
	}
	byDefault := gateway(nil)
	want(byDefault, true, append([]string{"authorization", "content-type"}, tracing...)...)
	want(byDefault, false, "x-app-version")
	other := gateway(map[string]string{"CORS_ALLOWED_HEADERS": "x-app-version"})
	want(other, true, "authorization", "content-type", "x-app-version")
	for _, header := range tracing {
		want(other, false, header)
	}
}
