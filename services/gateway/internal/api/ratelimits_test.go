package api_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"testing"

	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/pkg/testkit"
	"github.com/headgate/headgate/pkg/token"
	"github.com/headgate/headgate/services/gateway/internal/api"
	"github.com/headgate/headgate/services/gateway/internal/ratelimit"
)

// TestGeneralLimitOfAnAddress: every request counts, before its token is checked, so a
// flood of forged tokens is limited.
func TestGeneralLimitOfAnAddress(t *testing.T) {
	t.Parallel()
	g := newGatewayTrusting(t, here, testkit.Redis(t), api.RateLimits{GeneralIP: rate(3)})
	get := func(bearer, from string) string {
		a := g.do("GET", "/api/v1/user/me", "", "Authorization", bearer, "X-Forwarded-For", from)
		return fmt.Sprint(a.status, " ", a.Code)
	}
	var got []string
	for _, bearer := range []string{"Bearer forged", g.bearer(), "Bearer forged", "Bearer forged", g.bearer()} {
		got = append(got, get(bearer, "2001:db8::1"))
	}
	if want := []string{"401 token_invalid", "200 ", "401 token_invalid", "429 rate_limited", "429 rate_limited"}; !slices.Equal(got, want) {
		t.Errorf("= %v, want %v", got, want)
	}
	if got := get(g.bearer(), "2001:db8::ffff:1"); got != "429 rate_limited" {
		t.Errorf("from the same /64 = %s", got)
	}
	if got := get(g.bearer(), "2001:db8:0:1::1"); got != "200 " {
		t.Errorf("from another /64 = %s", got)
	}
}

// TestGeneralLimitOfManyGateways: together they let no more than the limit pass.
func TestGeneralLimitOfManyGateways(t *testing.T) {
	t.Parallel()
	client := testkit.Redis(t)
	limits := api.RateLimits{General: ratelimit.Rate{Requests: 100, Window: rate(1).Window}}
	gateways := []*gateway{newGateway(t, client, limits), newGateway(t, client, limits)}
	var bearers []string
	for _, g := range gateways {
		bearers = append(bearers, "Bearer "+g.issuer.Token(token.Identity{UserID: "01926f39-0000-7000-8000-000000000001"}))
	}
	passed := 0
	for i := range 300 {
		if a := gateways[i%2].do("GET", "/api/v1/user/me", "", "Authorization", bearers[i%2]); a.status == http.StatusOK {
			passed++
		}
	}
	if passed > 100 || passed < 90 {
		t.Errorf("%d passed, limit 100", passed)
	}
	t.Logf("%d passed, limit 100", passed)
}

type limitState struct {
	Policy    string
	Used      int
	Remaining int
	Backend   string
}

// TestRateLimitsRoute lists and resets counters; auth-service decides who may.
func TestRateLimitsRoute(t *testing.T) {
	t.Parallel()
	g := newGatewayTrusting(t, here, testkit.Redis(t), api.RateLimits{Login: rate(5), LoginIP: rate(40), GeneralIP: rate(100)})
	for range 2 {
		g.do("POST", "/api/v1/auth/login", `{"email":"Ann@Example.com"}`, "X-Forwarded-For", "192.0.2.1")
	}
	show := func(query string) (states []limitState) {
		t.Helper()
		a := g.do("GET", "/api/v1/auth/rate-limits?"+query, "", "Authorization", g.bearer())
		if a.status != http.StatusOK {
			t.Fatalf("%s = %d %s %s", query, a.status, a.Code, a.body)
		}
		if err := json.Unmarshal(a.Data, &states); err != nil {
			t.Fatal(err)
		}
		return states
	}
	selection := url.Values{"ip": {"192.0.2.1"}, "account": {" ann@example.com"}}
	want := []limitState{{"login", 2, 3, "redis"}, {"login-ip", 2, 38, "redis"}, {"general-ip", 3, 97, "redis"}}
	if got := show(selection.Encode()); !slices.Equal(got, want) {
		t.Errorf("= %+v, want %+v", got, want)
	}
	selection.Set("policy", "login")
	a := g.do("DELETE", "/api/v1/auth/rate-limits?"+selection.Encode(), "", "Authorization", g.bearer())
	if a.status != http.StatusOK || string(a.Data) != `{"cleared":1}` {
		t.Errorf("cleared = %d %s", a.status, a.body)
	}
	r, body, _ := g.upstream.got()
	if r.URL.Path != event.RateLimitsPath+"/cleared" || body != `{"policies":["login"],"by":["account","ip","policy"]}` || r.Header.Get("Authorization") == "" {
		t.Errorf("auth-service got %s %s %v", r.URL.Path, body, r.Header)
	}
	if got := show(selection.Encode()); !slices.Equal(got, []limitState{{"login", 0, 5, "redis"}}) {
		t.Errorf("after that = %+v", got)
	}
}

func TestRateLimitsRouteRefuses(t *testing.T) {
	t.Parallel()
	g := newGateway(t, testkit.Redis(t), api.RateLimits{Login: rate(5), LoginIP: rate(5)})
	for _, tc := range []struct{ method, query, code string }{
		{"GET", "", "validation_failed"},
		{"GET", "policy=login&ip=192.0.2.1", "validation_failed"},
		{"GET", "policy=none&ip=192.0.2.1", "validation_failed"},
		{"GET", "ip=nonsense", "validation_failed"},
		{"GET", "ip=192.0.2.1&ip=192.0.2.2", "validation_failed"},
		{"DELETE", "user=1", "validation_failed"},
		{"POST", "ip=192.0.2.1", "method_not_allowed"},
	} {
		if a := g.do(tc.method, "/api/v1/auth/rate-limits?"+tc.query, "", "Authorization", g.bearer()); a.Code != tc.code {
			t.Errorf("%s ?%s = %d %s, want %s", tc.method, tc.query, a.status, a.Code, tc.code)
		}
	}
}

// TestExceededIsReported: once, on behalf of the client.
func TestExceededIsReported(t *testing.T) {
	t.Parallel()
	g := newGatewayTrusting(t, here, testkit.Redis(t), api.RateLimits{Login: rate(1)})
	for range 5 {
		g.do("POST", "/api/v1/auth/login", `{"email":"ann@example.com"}`, "X-Forwarded-For", "192.0.2.1", "User-Agent", "curl", "X-Request-Id", "one")
	}
	testkit.Eventually(t, func() error {
		r, body, hits := g.upstream.got()
		want := `{"policy":"login","limit":1,"windowSeconds":900,"method":"POST","route":"/api/v1/auth/login"}`
		if hits != 2 || r.URL.Path != event.RateLimitsPath+"/exceeded" || body != want || r.Header.Get("X-Forwarded-For") != "192.0.2.1" ||
			r.Header.Get("User-Agent") != "curl" || r.Header.Get("X-Request-Id") != "one" {
			return fmt.Errorf("%d requests, the last one %s %s %v", hits, r.URL.Path, body, r.Header)
		}
		return nil
	})
}
