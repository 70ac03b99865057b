package api_test

import (
	"encoding/base64"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/headgate/headgate/pkg/testkit"
	"github.com/headgate/headgate/pkg/web"
	"github.com/headgate/headgate/services/gateway/internal/api"
	"github.com/headgate/headgate/services/gateway/internal/ratelimit"
)

func rate(n int) ratelimit.Rate { return ratelimit.Rate{Requests: n, Window: 15 * time.Minute} }

var here = web.Prefixes{netip.MustParsePrefix("127.0.0.0/8")}

func (g *gateway) login(email string) answer {
	g.t.Helper()
	return g.do("POST", "/api/v1/auth/login", fmt.Sprintf(`{"email":%q,"password":"x"}`, email))
}

func TestLoginLimit(t *testing.T) {
	t.Parallel()
	g := newGateway(t, testkit.Redis(t), api.RateLimits{Login: rate(5), LoginIP: rate(8)})
	for i := range 5 {
		a := g.login([]string{"ann@example.com", " ANN@example.com "}[i%2])
		if a.status != 200 || a.header.Get("RateLimit") != fmt.Sprintf(`"login";r=%d;t=900`, 4-i) && i == 0 || a.header.Get("RateLimit-Policy") != `"login";q=5;w=900` ||
			a.header.Get("X-RateLimit-Limit") != "5" || a.header.Get("X-RateLimit-Remaining") != strconv.Itoa(4-i) {
			t.Errorf("login %d = %d %v", i+1, a.status, a.header)
		}
	}
	a := g.login("ann@example.com")
	if a.status != 429 || a.Code != "rate_limited" || a.header.Get("Retry-After") == "" || a.header.Get("X-RateLimit-Remaining") != "0" || a.header.Get("X-RateLimit-Reset") == "" {
		t.Errorf("login 6 = %d %s %v", a.status, a.Code, a.header)
	}
	for i := range 3 {
		if a := g.login(fmt.Sprint("user", i, "@example.com")); a.status != 200 {
			t.Errorf("another account's login %d = %d", i+1, a.status)
		}
	}
	if a := g.login("fresh@example.com"); a.status != 429 || !strings.HasPrefix(a.header.Get("RateLimit"), `"login-ip"`) {
		t.Errorf("login 9 of one address = %d %s", a.status, a.header.Get("RateLimit"))
	}
}

// TestSEC32StuffingSpread: one guess at each of many accounts is limited as well, and an
// untrusted peer counts as one address, whatever its headers say.
func TestSEC32StuffingSpread(t *testing.T) {
	t.Parallel()
	g := newGateway(t, testkit.Redis(t), api.RateLimits{Login: rate(5), LoginIP: rate(40)})
	passed := 0
	for i := range 500 {
		body := fmt.Sprintf(`{"email":"user%d@example.com","password":"x"}`, i)
		if g.do("POST", "/api/v1/auth/login", body, "X-Forwarded-For", fmt.Sprintf("198.51.%d.%d", i/250, i%250)).status == 200 {
			passed++
		}
	}
	if passed != 40 {
		t.Errorf("%d of 500 logins passed, want 40", passed)
	}
}

func TestRefreshAndSignupLimits(t *testing.T) {
	t.Parallel()
	g := newGateway(t, testkit.Redis(t), api.RateLimits{Refresh: rate(2), SignupIP: rate(2)})
	refresh := func(session string) int {
		payload := base64.RawURLEncoding.EncodeToString(fmt.Appendf(nil, `{"sid":%q,"gen":1}`, session))
		return g.do("POST", "/api/v1/auth/refresh", fmt.Sprintf(`{"refreshToken":"h.%s.s"}`, payload)).status
	}
	if got := []int{refresh("a"), refresh("a"), refresh("a"), refresh("b")}; !slices.Equal(got, []int{200, 200, 429, 200}) {
		t.Errorf("refreshes = %v", got)
	}
	signup := func() int { return g.do("POST", "/api/v1/auth/signup", "{}").status }
	if got := []int{signup(), signup(), signup()}; !slices.Equal(got, []int{200, 200, 429}) {
		t.Errorf("sign-ups = %v", got)
	}
}

func TestGeneralLimitIsByUser(t *testing.T) {
	t.Parallel()
	g := newGateway(t, testkit.Redis(t), api.RateLimits{General: rate(2)})
	one, two := g.bearer(), g.bearer()
	get := func(bearer string) int { return g.do("GET", "/api/v1/user/me", "", "Authorization", bearer).status }
	if got := []int{get(one), get(one), get(one), get(two)}; !slices.Equal(got, []int{200, 200, 429, 200}) {
		t.Errorf("= %v", got)
	}
}

// SEC-104: the passwords that a signed-in user enters again are counted together, per user
// and network, whatever the method and the path.
func TestSEC104ProofLimit(t *testing.T) {
	t.Parallel()
	g := newGatewayTrusting(t, here, testkit.Redis(t), api.RateLimits{Proof: rate(3), Links: rate(3)})
	ann, bob := g.bearer(), g.bearer()
	for i, tc := range []struct{ from, bearer, route, want string }{
		{"192.0.2.1", ann, "POST /api/v1/auth/reauthenticate", `200"proof"`},
		{"192.0.2.1", ann, "DELETE /api/v1/auth/passkeys/0198c7a2", `200"proof"`},
		{"192.0.2.1", ann, "DELETE /api/v1/auth/mfa/totp/0198c7a3", `200"proof"`},
		{"192.0.2.1", ann, "DELETE /api/v1/auth/passkeys/0198c7a4", `429"proof"`},
		{"192.0.2.1", ann, "POST /api/v1/auth/change-password", `429"proof"`},
		{"192.0.2.1", ann, "PATCH /api/v1/auth/passkeys/0198c7a4", "200"}, // needs no password
		{"192.0.2.1", bob, "POST /api/v1/auth/change-password", `200"proof"`},
		{"198.51.100.1", ann, "DELETE /api/v1/auth/account", `200"proof"`},
		{"192.0.2.1", ann, "POST /api/v1/auth/verify-email", `429"proof"`},
		{"192.0.2.1", ann, "POST /api/v1/auth/change-email/confirm", `429"proof"`},
		{"192.0.2.1", "", "POST /api/v1/auth/verify-email", `200"links"`},
		{"192.0.2.1", "", "POST /api/v1/auth/reauthenticate", "200"}, // auth-service rejects it before it hashes
	} {
		method, path, _ := strings.Cut(tc.route, " ")
		a := g.do(method, path, `{"password":"x"}`, "X-Forwarded-For", tc.from, "Authorization", tc.bearer)
		name, _, _ := strings.Cut(a.header.Get("RateLimit"), ";")
		if got := fmt.Sprint(a.status, name); got != tc.want {
			t.Errorf("request %d, %s = %s, want %s", i+1, tc.route, got, tc.want)
		}
	}
}

// TestRefreshesOfAnotherAddress: a stranger who knows only a session's id cannot use up
// its owner's refreshes.
func TestRefreshesOfAnotherAddress(t *testing.T) {
	t.Parallel()
	g := newGatewayTrusting(t, here, testkit.Redis(t), api.RateLimits{Refresh: rate(2), RefreshIP: rate(5)})
	refresh := func(from, body string) string {
		a := g.do("POST", "/api/v1/auth/refresh", body, "X-Forwarded-For", from)
		name, _, _ := strings.Cut(a.header.Get("RateLimit"), ";")
		return fmt.Sprint(a.status, name)
	}
	body := fmt.Sprintf(`{"refreshToken":"h.%s.s"}`, base64.RawURLEncoding.EncodeToString([]byte(`{"sid":"a"}`)))
	for _, tc := range []struct{ from, body, want string }{
		{"192.0.2.1", body, `200"refresh"`},
		{"192.0.2.1", body, `200"refresh"`},
		{"192.0.2.1", body, `429"refresh"`},
		{"198.51.100.1", body, `200"refresh"`},
		{"192.0.2.9", "junk", `200"refresh-ip"`},
		{"192.0.2.9", "{}", `200"refresh-ip"`},
		{"192.0.2.9", `{"refreshToken":1}`, `200"refresh-ip"`},
	} {
		if got := refresh(tc.from, tc.body); got != tc.want {
			t.Errorf("a refresh from %s with %s = %s, want %s", tc.from, tc.body, got, tc.want)
		}
	}
}

// TestUnreadableLogins: a login that names no account is counted by address alone.
func TestUnreadableLogins(t *testing.T) {
	t.Parallel()
	g := newGateway(t, testkit.Redis(t), api.RateLimits{Login: rate(1), LoginIP: rate(5)})
	for i, body := range []string{"", "junk", "{}", `{"email":1}`, `{"email":" "}`} {
		a := g.do("POST", "/api/v1/auth/login", body)
		if want := fmt.Sprintf(`"login-ip";r=%d;t=`, 4-i); a.status != 200 || !strings.HasPrefix(a.header.Get("RateLimit"), want) {
			t.Errorf("a login with %q = %d %s, want %s", body, a.status, a.header.Get("RateLimit"), want)
		}
	}
	if a := g.login("ann@example.com"); a.status != 429 || !strings.HasPrefix(a.header.Get("RateLimit"), `"login-ip"`) {
		t.Errorf("login 6 of the address = %d %s", a.status, a.header.Get("RateLimit"))
	}
}

// TestLoginsAreCountedAsTheServiceReadsThem: names of members are exact, as in the service,
// which rejects any other spelling before it checks the password.
func TestLoginsAreCountedAsTheServiceReadsThem(t *testing.T) {
	t.Parallel()
	g := newGateway(t, testkit.Redis(t), api.RateLimits{Login: rate(5), LoginIP: rate(50)})
	for body, want := range map[string]string{
		`{"email":"ann@example.com"}`:                     `200 "login"`,
		`{"password":"x","email":"\u0061nn@example.com"}`: `200 "login"`,
		`{"Email":"ann@example.com"}`:                     `200 "login-ip"`,
		`{"user":{"email":"ann@example.com"}}`:            `200 "login-ip"`,
		`{"email":"ann@example.com","email":"b"}`:         `400 `,
	} {
		a := g.do("POST", "/api/v1/auth/login", body, "Content-Type", "application/json")
		policy, _, _ := strings.Cut(a.header.Get("RateLimit"), ";")
		if got := fmt.Sprint(a.status, " ", policy); got != want {
			t.Errorf("a login with %s = %s, want %s", body, got, want)
		}
	}
}

// TestMailLimit: both routes that send mail to an address count against one limit.
func TestMailLimit(t *testing.T) {
	t.Parallel()
	g := newGatewayTrusting(t, here, testkit.Redis(t), api.RateLimits{Mail: rate(3)})
	ask := func(path, from string) answer {
		return g.do("POST", "/api/v1/auth/"+path, `{"email":"ann@example.com"}`, "X-Forwarded-For", from)
	}
	for i, path := range []string{"forgot-password", "resend-verification", "forgot-password"} {
		if a := ask(path, "192.0.2.1"); a.status != 200 || a.header.Get("RateLimit-Policy") != `"mail";q=3;w=900` || a.header.Get("X-RateLimit-Remaining") != strconv.Itoa(2-i) {
			t.Errorf("%s = %d %v", path, a.status, a.header)
		}
	}
	for _, path := range []string{"forgot-password", "resend-verification"} {
		if a := ask(path, "192.0.2.1"); a.status != 429 || a.Code != "rate_limited" || a.header.Get("Retry-After") == "" {
			t.Errorf("%s beyond the limit = %d %s", path, a.status, a.Code)
		}
	}
	if a := ask("forgot-password", "198.51.100.1"); a.status != 200 {
		t.Errorf("from another address = %d", a.status)
	}
}

// TestLimitsAreExact sends a hundred logins at once through two gateways.
func TestLimitsAreExact(t *testing.T) {
	t.Parallel()
	client := testkit.Redis(t)
	one, two := newGateway(t, client, api.RateLimits{Login: rate(5)}), newGateway(t, client, api.RateLimits{Login: rate(5)})
	statuses := make(chan int, 100)
	var wg sync.WaitGroup
	for i := range cap(statuses) {
		wg.Go(func() { statuses <- []*gateway{one, two}[i%2].login("ann@example.com").status })
	}
	wg.Wait()
	close(statuses)
	count := map[int]int{}
	for status := range statuses {
		count[status]++
	}
	if count[200] != 5 || count[429] != 95 {
		t.Errorf("answers = %v, want 5 and 95", count)
	}
}
