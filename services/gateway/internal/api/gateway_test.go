package api_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"

	"github.com/headgate/headgate/pkg/testkit"
	"github.com/headgate/headgate/pkg/token"
	"github.com/headgate/headgate/pkg/web"
	"github.com/headgate/headgate/services/gateway/internal/api"
	"github.com/headgate/headgate/services/gateway/internal/docs"
	"github.com/headgate/headgate/services/gateway/internal/ratelimit"
	"github.com/headgate/headgate/services/gateway/internal/upstream"
)

func TestMain(m *testing.M) { testkit.Main(m) }

// fakeService is a service behind the gateway that remembers its requests.
type fakeService struct {
	*httptest.Server
	mu   sync.Mutex
	last *http.Request
	body string
	hits int

	requests []string // method and path of each
}

func newFakeService(t *testing.T) *fakeService {
	t.Helper()
	u := &fakeService{}
	u.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/readyz" {
			return
		}
		body, err := io.ReadAll(r.Body)
		u.mu.Lock()
		u.last, u.body = r, string(body)
		u.hits++
		u.requests = append(u.requests, r.Method+" "+r.URL.Path)
		u.mu.Unlock()
		switch {
		case err != nil:
			return
		case r.URL.Path == "/api/v1/user/hangup":
			panic(http.ErrAbortHandler)
		}
		w.Header().Set("Content-Type", "text/plain")
		w.Header().Set("Content-Security-Policy", "default-src 'self'")
		w.Header().Set("X-Request-Id", r.Header.Get("X-Request-Id"))
		w.Header().Set("X-Content-Type-Options", "nosniff")
		w.Header().Set("X-Powered-By", "upstream")
		fmt.Fprint(w, "from the service")
	}))
	t.Cleanup(u.Close)
	return u
}

func (u *fakeService) got() (*http.Request, string, int) {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.last, u.body, u.hits
}

// since returns method and path of the requests after the first n.
func (u *fakeService) since(n int) []string {
	u.mu.Lock()
	defer u.mu.Unlock()
	return slices.Clone(u.requests[n:])
}

type gateway struct {
	*httptest.Server
	t        *testing.T
	issuer   *testkit.Issuer
	upstream *fakeService
	trusted  web.Prefixes
	metrics  *prometheus.Registry
	running  []testkit.Running // the services
}

func newGateway(t *testing.T, client redis.UniversalClient, limits api.RateLimits) *gateway {
	t.Helper()
	return newGatewayTrusting(t, nil, client, limits)
}

// newGatewayTrusting returns a gateway that takes the client's address from the headers of
// trusted.
func newGatewayTrusting(t *testing.T, trusted web.Prefixes, client redis.UniversalClient, limits api.RateLimits) *gateway {
	t.Helper()
	g := &gateway{t: t, issuer: testkit.NewIssuer(t), upstream: newFakeService(t), trusted: trusted}
	g.Server = httptest.NewServer(handlerFor(t, g, client, limits, nil))
	t.Cleanup(g.Close)
	return g
}

// setup holds the parts of a gateway that a test can change.
type setup struct {
	routes      []api.Route
	addresses   map[string]upstream.Addresses
	upstream    upstream.Options
	origins     api.Origins
	corsHeaders api.Headers
}

// serviceTimeout is how long gateways wait for a service unless their test is about that.
const serviceTimeout = 15 * time.Second

func handlerFor(t *testing.T, g *gateway, client redis.UniversalClient, limits api.RateLimits, change func(*setup)) http.Handler {
	t.Helper()
	target, err := url.Parse(g.upstream.URL)
	if err != nil {
		t.Fatal(err)
	}
	log, metrics := slog.New(noPanics{testkit.Log(t).Handler(), t}), prometheus.NewRegistry()
	g.metrics = metrics
	s := setup{
		routes:    api.Routes,
		addresses: map[string]upstream.Addresses{"auth": {target}, "user": {target}, "email": {target}, "audit": {target}},
		// A busy machine answers late, and accepts connections late.
		upstream: upstream.Options{Timeout: serviceTimeout, Stall: serviceTimeout, Wait: serviceTimeout, MaxInFlight: 100, Log: log, Metrics: upstream.NewMetrics(metrics)},
	}
	if change != nil {
		change(&s)
	}
	services := map[string]*upstream.Service{}
	for name, at := range s.addresses {
		services[name] = upstream.New(name, at, s.upstream)
		g.running = append(g.running, testkit.Run(t, services[name]))
	}
	described, err := docs.New("Headgate")
	if err != nil {
		t.Fatal(err)
	}
	reports := api.NewReports(services["auth"], log, metrics, time.Now)
	testkit.Run(t, reports)
	return api.New(api.Config{
		Routes: s.routes, Services: services, Version: "test", Verifier: g.issuer.Verifier(),
		Limiter: ratelimit.New(client, log, metrics, time.Now), RateLimits: limits, Reports: reports, Docs: described, CORS: api.CORS{Origins: s.origins, Headers: s.corsHeaders}, Now: time.Now,
		Edge: web.Options{Log: log, Metrics: metrics, Ready: func(context.Context) error { return nil }, TrustedProxies: g.trusted},
	})
}

// noPanics fails the test if a panic is logged.
type noPanics struct {
	slog.Handler

	t *testing.T
}

func (h noPanics) Handle(ctx context.Context, r slog.Record) error {
	r.Attrs(func(a slog.Attr) bool {
		if strings.Contains(a.Value.String(), "panic: ") {
			h.t.Errorf("%s: %s", r.Message, a.Value)
		}
		return true
	})
	return h.Handler.Handle(ctx, r)
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
	// The path is sent exactly as written here.
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
	_ = json.Unmarshal(data, &a) // Responses of the service are not JSON.
	return a
}

func (g *gateway) bearer() string { return "Bearer " + g.issuer.Token(token.Identity{}) }
