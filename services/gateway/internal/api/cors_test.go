package api_test

import (
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/headgate/headgate/pkg/testkit"
	"github.com/headgate/headgate/services/gateway/internal/api"
)

func TestSEC52CrossOrigin(t *testing.T) {
	t.Parallel()
	g := &gateway{t: t, issuer: testkit.NewIssuer(t), upstream: newFakeService(t)}
	server := httptest.NewServer(handlerFor(t, g, testkit.Redis(t), api.RateLimits{}, func(s *setup) {
		s.origins = api.Origins{"https://app.example.com", "http://localhost:5173"}
		s.corsHeaders = api.Headers{"traceparent", "X-App-Version"}
	}))
	t.Cleanup(server.Close)
	g.Server = server
	bearer := g.bearer()
	for origin, allowed := range map[string]bool{
		"https://app.example.com": true, "http://localhost:5173": true,
		"null": false, "http://app.example.com": false, "https://app.example.com.evil.com": false, "https://evil.com": false,
		"https://app.example.com:444": false, "https://app.example.com/": false, "https://xapp.example.com": false,
		"https://app-example.com": false, "http://localhost": false, "*": false, "": false,
	} {
		want := ""
		if allowed {
			want = origin
		}
		a := g.do("GET", "/api/v1/user/me", "", "Authorization", bearer, "Origin", origin)
		if got := a.header.Get("Access-Control-Allow-Origin"); got != want || a.status != 200 {
			t.Errorf("GET from %q = %d, allowed: %q", origin, a.status, got)
		}
		if allowed && !strings.Contains(a.header.Get("Access-Control-Expose-Headers"), "X-Request-Id") {
			t.Errorf("GET from %q exposes %q", origin, a.header.Get("Access-Control-Expose-Headers"))
		}
		preflight := g.do("OPTIONS", "/api/v1/user/me", "", "Origin", origin, "Access-Control-Request-Method", "PATCH", "Access-Control-Request-Headers", "authorization,content-type,if-match")
		if got := preflight.header.Get("Access-Control-Allow-Origin"); got != want {
			t.Errorf("preflight from %q = %d, allowed: %q", origin, preflight.status, got)
		}
		if allowed && (preflight.status != 204 || preflight.header.Get("Access-Control-Max-Age") != "600" || preflight.header.Get("Access-Control-Allow-Methods") != "PATCH") {
			t.Errorf("preflight from %q = %d %v", origin, preflight.status, preflight.header)
		}
		for what, a := range map[string]answer{"GET": a, "preflight": preflight} {
			if !strings.Contains(strings.Join(a.header.Values("Vary"), ","), "Origin") {
				t.Errorf("%s from %q: Vary = %q", what, origin, a.header.Values("Vary"))
			}
			if a.header.Get("Access-Control-Allow-Credentials") != "" {
				t.Errorf("%s from %q lets the browser send what it keeps for us", what, origin)
			}
		}
	}
	// A refusal can be read by the application too.
	if a := g.do("GET", "/api/v1/user/me", "", "Origin", "https://app.example.com"); a.status != 401 || a.header.Get("Access-Control-Allow-Origin") == "" {
		t.Errorf("refused = %d %v", a.status, a.header)
	}
	for header, value := range map[string]string{"Access-Control-Request-Method": "TRACE", "Access-Control-Request-Headers": "x-user-id"} {
		method := "GET"
		if header == "Access-Control-Request-Method" {
			method = value
		}
		a := g.do("OPTIONS", "/api/v1/user/me", "", "Origin", "https://app.example.com", "Access-Control-Request-Method", method, header, value)
		if a.header.Get("Access-Control-Allow-Origin") != "" {
			t.Errorf("preflight for %s is allowed", value)
		}
	}
	for headers, allowed := range map[string]bool{
		"accept,authorization,content-type,idempotency-key,if-match,if-none-match,x-request-id": true,
		"traceparent,x-app-version": true, "baggage": false,
	} {
		a := g.do("OPTIONS", "/api/v1/user/me", "", "Origin", "https://app.example.com", "Access-Control-Request-Method", "GET", "Access-Control-Request-Headers", headers)
		if got := a.header.Get("Access-Control-Allow-Origin") != ""; got != allowed {
			t.Errorf("preflight for %s is allowed: %t, want %t", headers, got, allowed)
		}
	}
	if _, _, hits := g.upstream.got(); hits != 13 {
		t.Errorf("the service got %d requests, want the 13 that are not preflights", hits)
	}
}

func TestHeaders(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]int{"": 0, "traceparent": 1, " traceparent , sentry-trace,": 2, "*": -1, "a b": -1, "a:": -1, "x-*": 1} {
		var h api.Headers
		if err := h.UnmarshalText([]byte(text)); (err == nil) != (want >= 0) || err == nil && len(h) != want {
			t.Errorf("%q = %q, %v", text, h, err)
		}
	}
}

func TestOrigins(t *testing.T) {
	t.Parallel()
	for text, ok := range map[string]bool{
		"": true, "https://app.example.com": true, "https://a.example , http://localhost:5173": true,
		"*": false, "https://*.example.com": false, "null": false, "app.example.com": false, "https://app.example.com/": false,
		"https://App.example.com": false, "ftp://a.example": false, "https://user@a.example": false, "https://a.example?x": false,
	} {
		var o api.Origins
		if err := o.UnmarshalText([]byte(text)); (err == nil) != ok {
			t.Errorf("%q = %v, %v", text, o, err)
		}
	}
}
