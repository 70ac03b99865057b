package api_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"

	"github.com/headgate/headgate/pkg/bus"
	"github.com/headgate/headgate/pkg/service"
	"github.com/headgate/headgate/pkg/testkit"
	"github.com/headgate/headgate/pkg/testkit/localserver"
	"github.com/headgate/headgate/pkg/token"
	"github.com/headgate/headgate/pkg/web"
	"github.com/headgate/headgate/services/gateway/internal/api"
	"github.com/headgate/headgate/services/gateway/internal/limit"
)

func TestMain(m *testing.M) { testkit.Main(m) }

// upstream is a service behind the gateway that remembers what it got.
type upstream struct {
	*httptest.Server
	mu   sync.Mutex
	last *http.Request
	body string
	hits int
}

func newUpstream(t *testing.T) *upstream {
	t.Helper()
	u := &upstream{}
	u.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/readyz" {
			return
		}
		body, err := io.ReadAll(r.Body)
		u.mu.Lock()
		u.last, u.body = r, string(body)
		u.hits++
		u.mu.Unlock()
		switch {
		case err != nil:
			return
		case r.URL.Path == "/api/v1/user/slow":
			<-r.Context().Done()
			return
		case r.URL.Path == "/api/v1/user/hangup":
			panic(http.ErrAbortHandler)
		}
		w.Header().Set("Content-Type", "text/plain")
		w.Header().Set("Content-Security-Policy", "default-src 'self'")
		w.Header().Set("X-Request-Id", "upstream's")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		w.Header().Set("X-Powered-By", "upstream")
		fmt.Fprint(w, "from the service")
	}))
	t.Cleanup(u.Close)
	return u
}

func (u *upstream) got() (*http.Request, string, int) {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.last, u.body, u.hits
}

type gateway struct {
	*httptest.Server
	t        *testing.T
	issuer   *testkit.Issuer
	upstream *upstream
}

func newRedis(t *testing.T, address string) redis.UniversalClient {
	t.Helper()
	client, err := bus.Redis{RedisURL: service.Secret(address)}.Open(200 * time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	return client
}

func newGateway(t *testing.T, client redis.UniversalClient, limits api.Limits) *gateway {
	t.Helper()
	g := &gateway{t: t, issuer: testkit.NewIssuer(t), upstream: newUpstream(t)}
	g.Server = httptest.NewServer(handlerFor(t, g, client, limits, nil))
	t.Cleanup(g.Close)
	return g
}

func handlerFor(t *testing.T, g *gateway, client redis.UniversalClient, limits api.Limits, change func(map[string]*url.URL)) http.Handler {
	t.Helper()
	target, err := url.Parse(g.upstream.URL)
	if err != nil {
		t.Fatal(err)
	}
	services := map[string]*url.URL{"auth": target, "user": target, "email": target, "audit": target}
	if change != nil {
		change(services)
	}
	log, metrics := testkit.Log(t), prometheus.NewRegistry()
	health := api.NewHealth("test", services)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- health.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return api.New(api.Config{
		Services: services, Verifier: g.issuer.Verifier(), Limiter: limit.New(client, log, metrics, time.Now), Limits: limits,
		Health: health, Timeout: 300 * time.Millisecond, Now: time.Now,
		Edge: web.Options{Log: log, Metrics: metrics, Live: service.Livez, Ready: service.Livez},
	})
}

type answer struct {
	status int
	header http.Header
	body   string
	Code   string
	Data   json.RawMessage
}

func (g *gateway) do(method, path, body string, header ...string) answer {
	g.t.Helper()
	req, err := http.NewRequestWithContext(context.Background(), method, g.URL, strings.NewReader(body))
	if err != nil {
		g.t.Fatal(err)
	}
	// The path goes out as it is written here.
	base, _ := url.Parse(g.URL)
	plain, query, _ := strings.Cut(path, "?")
	req.URL = &url.URL{Scheme: "http", Host: base.Host, Opaque: "//" + base.Host + plain, RawQuery: query}
	for i := 0; i < len(header); i += 2 {
		req.Header.Add(header[i], header[i+1])
	}
	client := http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	res, err := client.Do(req)
	if err != nil {
		g.t.Fatal(err)
	}
	defer res.Body.Close()
	data, err := io.ReadAll(res.Body)
	if err != nil {
		g.t.Fatal(err)
	}
	a := answer{status: res.StatusCode, header: res.Header, body: string(data)}
	_ = json.Unmarshal(data, &a) // The upstream's answers are no JSON.
	return a
}

func (g *gateway) bearer() string { return "Bearer " + g.issuer.Token(token.Identity{}) }

func TestRoutes(t *testing.T) {
	t.Parallel()
	g := newGateway(t, testkit.Redis(t), api.Limits{})
	for _, tc := range []struct {
		method, path, token, code string
		status                    int
	}{
		{"POST", "/api/v1/auth/signup", "", "", 200},
		{"POST", "/api/v1/auth/refresh", "Bearer stale", "", 200},
		{"GET", "/.well-known/jwks.json", "", "", 200},
		{"GET", "/.well-known/other", "", "not_found", 404},
		{"GET", "/api/v1/user/me", "", "unauthenticated", 401},
		{"GET", "/api/v1/user/me", "Bearer junk", "token_invalid", 401},
		{"GET", "/api/v1/user/me", "Basic junk", "token_invalid", 401},
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
		if tc.status == 405 && a.header.Get("Allow") == "" {
			t.Errorf("%s %s: no Allow", tc.method, tc.path)
		}
	}
}

// TestPaths is SEC-42: no path has two readings, and nothing is redirected.
func TestPaths(t *testing.T) {
	t.Parallel()
	g := newGateway(t, testkit.Redis(t), api.Limits{})
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

// TestHeaders is SEC-38 to SEC-40 and trap T11.
func TestHeaders(t *testing.T) {
	t.Parallel()
	g := newGateway(t, testkit.Redis(t), api.Limits{})
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
	g := newGateway(t, testkit.Redis(t), api.Limits{Login: limit.Rate{Requests: 100, Window: time.Minute}})
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
	// Without a length nobody can tell before it is read.
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
	g := newGateway(t, testkit.Redis(t), api.Limits{})
	for path, want := range map[string]string{"/api/v1/user/slow": "504 gateway_timeout", "/api/v1/user/hangup": "502 bad_gateway"} {
		start := time.Now()
		a := g.do("GET", path, "", "Authorization", g.bearer())
		if got := fmt.Sprint(a.status, " ", a.Code); got != want || a.header.Get("Retry-After") == "" || time.Since(start) > 3*time.Second {
			t.Errorf("GET %s = %s after %s, want %s", path, got, time.Since(start), want)
		}
	}
	g.upstream.Close()
	if a := g.do("GET", "/api/v1/user/me", "", "Authorization", g.bearer()); a.status != 502 || a.Code != "bad_gateway" || strings.Contains(a.body, "127.0.0.1") {
		t.Errorf("with the service away = %d %s", a.status, a.body)
	}
}

func TestHealth(t *testing.T) {
	t.Parallel()
	g := newGateway(t, testkit.Redis(t), api.Limits{})
	gone, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	gone.Close()
	server := httptest.NewServer(handlerFor(t, g, testkit.Redis(t), api.Limits{}, func(services map[string]*url.URL) {
		services["email"] = &url.URL{Scheme: "http", Host: gone.Addr().String()}
	}))
	defer server.Close()
	g.URL = server.URL
	testkit.Eventually(t, 10*time.Second, func() error {
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

func rate(n int) limit.Rate { return limit.Rate{Requests: n, Window: 15 * time.Minute} }

func (g *gateway) login(email string) answer {
	g.t.Helper()
	return g.do("POST", "/api/v1/auth/login", fmt.Sprintf(`{"email":%q,"password":"x"}`, email))
}

func TestLoginLimit(t *testing.T) {
	t.Parallel()
	g := newGateway(t, testkit.Redis(t), api.Limits{Login: rate(5), LoginIP: rate(8)})
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
		t.Errorf("SEC-32: login 9 of one address = %d %s", a.status, a.header.Get("RateLimit"))
	}
}

func TestRefreshAndSignupLimits(t *testing.T) {
	t.Parallel()
	g := newGateway(t, testkit.Redis(t), api.Limits{Refresh: rate(2), SignupIP: rate(2)})
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

func TestGeneralLimitIsByUserOrAddress(t *testing.T) {
	t.Parallel()
	g := newGateway(t, testkit.Redis(t), api.Limits{General: rate(2)})
	one, two := g.bearer(), g.bearer()
	get := func(bearer string) int { return g.do("GET", "/api/v1/user/me", "", "Authorization", bearer).status }
	if got := []int{get(one), get(one), get(one), get(two)}; !slices.Equal(got, []int{200, 200, 429, 200}) {
		t.Errorf("= %v", got)
	}
}

// TestLimitsAreExact sends a hundred at once through two gateways.
func TestLimitsAreExact(t *testing.T) {
	t.Parallel()
	client := testkit.Redis(t)
	one, two := newGateway(t, client, api.Limits{Login: rate(5)}), newGateway(t, client, api.Limits{Login: rate(5)})
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

// TestLimitsWithoutRedis is SEC-33: the same limits, no failure, no long wait.
func TestLimitsWithoutRedis(t *testing.T) {
	t.Parallel()
	options := localserver.Options{Dir: filepath.Join(t.TempDir(), "redis"), Durable: true}
	server, err := localserver.StartRedis(t.Context(), options)
	if err != nil {
		t.Fatal(err)
	}
	g := newGateway(t, newRedis(t, server.URL), api.Limits{Login: rate(5)})
	if a := g.login("ann@example.com"); a.status != 200 {
		t.Fatalf("login = %d", a.status)
	}
	if err := server.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	count := map[int]int{}
	for range 20 {
		start := time.Now()
		count[g.login("bob@example.com").status]++
		if took := time.Since(start); took > time.Second {
			t.Errorf("a login took %s", took)
		}
	}
	if count[200] != 5 || count[429] != 15 {
		t.Errorf("answers = %v, want 5 and 15", count)
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
	testkit.Eventually(t, 10*time.Second, func() error {
		// Ann used one before Redis went away; Redis remembers.
		a := g.login("ann@example.com")
		if a.header.Get("X-RateLimit-Remaining") == "4" {
			return fmt.Errorf("redis is not asked yet: %v", a.header)
		}
		return nil
	})
}
