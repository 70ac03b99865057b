package api_test

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/headgate/headgate/pkg/testkit"
	"github.com/headgate/headgate/services/gateway/internal/api"
	"github.com/headgate/headgate/services/gateway/internal/upstream"
)

// TestSEC120To122HostileUpstreams: whatever bytes a service writes, its client gets a
// well-formed answer or the gateway's own error (SEC-120); the next clients of the same
// address get their own answers, and nothing stays counted as in flight (SEC-121); the
// gateway's own headers survive (SEC-122).
func TestSEC120To122HostileUpstreams(t *testing.T) {
	t.Parallel()
	for _, tc := range hostileCases {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			tc.run(t)
		})
	}
}

func TestHostileCasesAreDistinct(t *testing.T) {
	t.Parallel()
	names := map[string]bool{}
	for _, tc := range hostileCases {
		names[tc.name] = true
	}
	if len(names) != len(hostileCases) || len(names) < 60 {
		t.Errorf("%d cases have %d names", len(hostileCases), len(names))
	}
}

// hostileCase is one request that a hostile service answers.
type hostileCase struct {
	name     string
	method   string // GET if empty
	body     string // streamed if the method is PUT
	unread   bool   // Whether the service leaves the body of the request unread.
	answer   script
	want     []string // any of these: status and body; "502" and "504" in the envelope; "cut" if the body ends early
	wantNone string   // must not be among the bytes that the client gets
	header   map[string]string
}

// script is how a hostile service answers. It returns false to close the connection.
type script func(u *hostileService, c net.Conn) bool

// hostileService answers the request for /attack by its script, and all others well.
type hostileService struct {
	unread   bool
	script   script
	answered chan struct{} // closed when the client of /attack has its answer
	over     chan struct{} // closed when the script writes no more
	settle   func()
}

func (u *hostileService) serve(c net.Conn) {
	defer c.Close()
	r := bufio.NewReader(c)
	for {
		req, err := http.ReadRequest(r)
		if err != nil {
			return
		}
		attack := strings.HasSuffix(req.URL.Path, "/attack") || req.URL.Path == avatar
		if !attack || !u.unread {
			if _, err := io.Copy(io.Discard, req.Body); err != nil {
				u.settle()
				return
			}
		}
		switch {
		case req.URL.Path == "/readyz":
			fmt.Fprint(c, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
		case !attack:
			own := "for " + req.Header.Get("X-Request-Id")
			fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n\r\n%s", len(own), own)
		default:
			open := u.script(u, c)
			u.settle()
			if !open {
				return
			}
		}
	}
}

// listen serves until the end of the test.
func (u *hostileService) listen(t *testing.T) *url.URL {
	t.Helper()
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	var all []net.Conn
	t.Cleanup(func() {
		listener.Close()
		mu.Lock()
		defer mu.Unlock()
		for _, c := range all {
			c.Close()
		}
	})
	go func() {
		for {
			c, err := listener.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			all = append(all, c)
			mu.Unlock()
			go u.serve(c)
		}
	}()
	return &url.URL{Scheme: "http", Host: listener.Addr().String()}
}

func (tc hostileCase) run(t *testing.T) {
	t.Helper()
	u := &hostileService{unread: tc.unread, script: tc.answer, answered: make(chan struct{}), over: make(chan struct{})}
	u.settle = sync.OnceFunc(func() { close(u.over) })
	g := &gateway{t: t, issuer: testkit.NewIssuer(t), upstream: newFakeService(t)}
	server := httptest.NewServer(handlerFor(t, g, testkit.Redis(t), api.RateLimits{}, func(s *setup) {
		s.addresses["hostile"] = upstream.Addresses{u.listen(t)}
		s.routes = []api.Route{{Path: "/api/v1/hostile", Service: "hostile"}, {Path: "/api/v1/user", Service: "hostile"}}
		s.upstream.Timeout, s.upstream.Stall = hostileTimeout, hostileTimeout
	}))
	t.Cleanup(server.Close)
	client := hostileClient{t: t, gateway: server.Listener.Addr().String()}

	client.wantOwn("GET", "before") // The attack comes over a connection that was used before.
	got := client.attack(tc)
	close(u.answered)
	select {
	case <-u.over:
	case <-time.After(testkit.Timeout):
		t.Fatal("the service still writes")
	}
	if !slices.Contains(tc.want, got.summary) {
		t.Errorf("the client got %.200q, want one of %.200q: %.1000q", got.summary, tc.want, got.raw)
	}
	if tc.wantNone != "" && bytes.Contains(got.raw, []byte(tc.wantNone)) {
		t.Errorf("the client got %q: %.1000q", tc.wantNone, got.raw)
	}
	for name, want := range tc.header {
		if got := strings.Join(got.header.Values(name), "|"); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	client.wantOwn("GET", "next-1")
	client.wantOwn("POST", "next-2")
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() { client.wantOwn([]string{"GET", "POST"}[i%2], fmt.Sprint("parallel-", i)) })
	}
	all.Wait()
	g.wantUnused(server)
}

// wantUnused checks that no request counts as in flight and, after the gateway has stopped,
// that no connection to a service is left.
func (g *gateway) wantUnused(server *httptest.Server) {
	g.t.Helper()
	zero := func(name string) {
		g.t.Helper()
		testkit.Eventually(g.t, func() error {
			if n := g.sum(name); n != 0 {
				return fmt.Errorf("%s = %v", name, n)
			}
			return nil
		})
	}
	zero("headgate_upstream_requests_in_flight")
	server.Close()
	for _, running := range g.running {
		running.Stop()
	}
	zero("headgate_upstream_connections_open")
}

// sum returns the sum of a gauge over all its labels.
func (g *gateway) sum(name string) float64 {
	g.t.Helper()
	families, err := g.metrics.Gather()
	if err != nil {
		g.t.Fatal(err)
	}
	sum, found := 0.0, false
	for _, family := range families {
		if family.GetName() != name {
			continue
		}
		for _, metric := range family.GetMetric() {
			sum, found = sum+metric.GetGauge().GetValue(), true
		}
	}
	if !found {
		g.t.Fatalf("no metric %s", name)
	}
	return sum
}

type hostileClient struct {
	t       *testing.T
	gateway string
}

type hostileAnswer struct {
	raw     []byte
	summary string
	header  http.Header
}

// attack sends the request of tc and reads everything that comes back.
func (c hostileClient) attack(tc hostileCase) hostileAnswer {
	c.t.Helper()
	method, path := tc.method, "/api/v1/hostile/attack"
	switch method {
	case "":
		method = http.MethodGet
	case http.MethodPut:
		path = avatar
	}
	return c.do(method, path, "attack", tc.body)
}

func (c hostileClient) wantOwn(method, id string) {
	c.t.Helper()
	got := c.do(method, "/api/v1/hostile/next", id, "")
	if want := "200 for " + id; got.summary != want {
		c.t.Errorf("client %s got %q, want %q: %.1000q", id, got.summary, want, got.raw)
	}
}

func (c hostileClient) do(method, path, id, body string) hostileAnswer {
	c.t.Helper()
	conn := dial(c.t, c.gateway, testkit.Timeout)
	length := ""
	if method == http.MethodPost || method == http.MethodPut {
		length = fmt.Sprintf("Content-Length: %d\r\n", len(body))
	}
	go func() { // The answer may come before the end of the body.
		fmt.Fprintf(conn, "%s %s HTTP/1.1\r\nHost: x\r\nX-Request-Id: %s\r\nConnection: close\r\n%s\r\n%s", method, path, id, length, body)
	}()
	raw, err := io.ReadAll(conn)
	if err != nil && !errors.Is(err, net.ErrClosed) && len(raw) == 0 {
		c.t.Errorf("client %s: %v", id, err)
	}
	return c.parse(method, id, raw)
}

// parse checks that raw is one answer to a request with that id, and nothing else.
func (c hostileClient) parse(method, id string, raw []byte) hostileAnswer {
	c.t.Helper()
	r := bufio.NewReader(bytes.NewReader(raw))
	res, err := http.ReadResponse(r, &http.Request{Method: method})
	if err != nil {
		return hostileAnswer{raw: raw, summary: "nothing: " + err.Error()}
	}
	text, err := io.ReadAll(res.Body)
	a := hostileAnswer{raw: raw, header: res.Header, summary: fmt.Sprintf("%d %s", res.StatusCode, text)}
	rest, _ := io.ReadAll(r) // It reads from memory.
	switch {
	case err != nil:
		a.summary = "cut"
	case len(rest) > 0:
		c.t.Errorf("client %s got more than an answer: %.1000q", id, raw)
	case strings.Contains(string(text), `"code":"bad_gateway"`), strings.Contains(string(text), `"code":"gateway_timeout"`):
		a.summary = strconv.Itoa(res.StatusCode)
	}
	if got := res.Header["X-Request-Id"]; !slices.Equal(got, []string{id}) {
		c.t.Errorf("client %s got the answer to %q", id, got)
	}
	for _, name := range []string{"Content-Security-Policy", "X-Content-Type-Options", "Referrer-Policy", "Cache-Control"} {
		if res.Header.Get(name) == "" {
			c.t.Errorf("client %s got no %s: %v", id, name, res.Header)
		}
	}
	if got := res.Header.Get("X-Content-Type-Options"); got != "nosniff" {
		c.t.Errorf("client %s got X-Content-Type-Options: %s", id, got)
	}
	return a
}
