package upstream_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/headgate/headgate/pkg/testkit"
	"github.com/headgate/headgate/services/gateway/internal/upstream"
)

// instance is one address of a service.
type instance struct {
	*httptest.Server
	hits    atomic.Int64
	unready atomic.Bool
	broken  atomic.Bool
	unblock chan struct{} // requests to /blocked wait until it is closed
}

func newInstance(t *testing.T) *instance {
	t.Helper()
	i := &instance{unblock: make(chan struct{})}
	i.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/readyz" {
			if i.unready.Load() || i.broken.Load() {
				w.WriteHeader(http.StatusServiceUnavailable)
			}
			return
		}
		i.hits.Add(1)
		if i.broken.Load() {
			panic(http.ErrAbortHandler)
		}
		if r.URL.Path == "/blocked" {
			w.(http.Flusher).Flush()
			select {
			case <-i.unblock:
			case <-r.Context().Done():
			}
		}
		_, _ = io.WriteString(w, "ok")
	}))
	t.Cleanup(i.Close)
	return i
}

type fixture struct {
	*upstream.Service
	t       *testing.T
	metrics *prometheus.Registry
}

// newFixture returns a service at the addresses. They are not probed before testkit.Run.
func newFixture(t *testing.T, maxInFlight int, addresses ...string) fixture {
	t.Helper()
	return newFixtureOf(t, upstream.Options{MaxInFlight: maxInFlight}, addresses...)
}

func newFixtureOf(t *testing.T, o upstream.Options, addresses ...string) fixture {
	t.Helper()
	var at []*url.URL
	for _, address := range addresses {
		u, err := url.Parse(address)
		if err != nil {
			t.Fatal(err)
		}
		at = append(at, u)
	}
	metrics := prometheus.NewRegistry()
	o.Timeout, o.Stall, o.Log, o.Metrics = 5*time.Second, 5*time.Second, testkit.Log(t), upstream.NewMetrics(metrics)
	return fixture{upstream.New("svc", at, o), t, metrics}
}

// ask returns the response with its body unread.
func (w fixture) ask(method, path, body string) (*http.Response, error) {
	w.t.Helper()
	req, err := http.NewRequestWithContext(w.t.Context(), method, "http://svc"+path, strings.NewReader(body))
	if err != nil {
		w.t.Fatal(err)
	}
	return w.RoundTrip(req)
}

func (w fixture) must(method, path, body string) {
	w.t.Helper()
	res, err := w.ask(method, path, body)
	if err != nil {
		w.t.Fatalf("%s %s: %v", method, path, err)
	}
	defer res.Body.Close()
	if _, err := io.Copy(io.Discard, res.Body); err != nil {
		w.t.Fatalf("%s %s: %v", method, path, err)
	}
}

// nowhere returns an address without a listener.
func nowhere(t *testing.T) string {
	t.Helper()
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	return "http://" + listener.Addr().String()
}

func TestFewestRequestsFirst(t *testing.T) {
	t.Parallel()
	a, b := newInstance(t), newInstance(t)
	w := newFixture(t, 100, a.URL, b.URL)
	var blocked []*http.Response
	for range 10 {
		res, err := w.ask("GET", "/blocked", "")
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		blocked = append(blocked, res)
	}
	if a.hits.Load() != 5 || b.hits.Load() != 5 {
		t.Errorf("10 requests at a time are shared as %d and %d", a.hits.Load(), b.hits.Load())
	}
	for _, res := range blocked {
		if "http://"+res.Request.URL.Host == b.URL {
			res.Body.Close()
		}
	}
	for range 10 {
		w.must("GET", "/", "")
	}
	if a.hits.Load() != 5 || b.hits.Load() != 15 {
		t.Errorf("with 5 under way at the one, 10 in turn are shared as %d and %d", a.hits.Load()-5, b.hits.Load()-5)
	}
}

func TestUnreadyGetsNothing(t *testing.T) {
	t.Parallel()
	a, b := newInstance(t), newInstance(t)
	a.unready.Store(true)
	w := newFixture(t, 100, a.URL, b.URL)
	testkit.Run(t, w.Service)
	// Until the first probe a may get some.
	testkit.Eventually(t, func() error {
		before := a.hits.Load()
		for range 20 {
			w.must("POST", "/", "x")
		}
		if a.hits.Load() != before {
			return errors.New("the address that is not ready gets requests")
		}
		return nil
	})
	testkit.Eventually(t, func() error {
		if !w.Up() {
			return errors.New("not up, though one address is")
		}
		return nil
	})
	a.unready.Store(false)
	testkit.Eventually(t, func() error {
		before := a.hits.Load()
		for range 4 {
			w.must("POST", "/", "x")
		}
		if a.hits.Load() == before {
			return errors.New("the address that is ready again gets nothing")
		}
		return nil
	})
	// If no address is ready, requests go to them all the same: the probe may be wrong.
	a.unready.Store(true)
	b.unready.Store(true)
	testkit.Eventually(t, func() error {
		if w.Up() {
			return errors.New("still up")
		}
		return nil
	})
	w.must("POST", "/", "x")
}

// TestNotSentGoesToTheNextAddress: a request that was certainly not sent goes to the next
// address, whatever its method; one that may have been read does not.
func TestNotSentGoesToTheNextAddress(t *testing.T) {
	t.Parallel()
	gone, there := nowhere(t), newInstance(t)
	w := newFixture(t, 100, gone, there.URL)
	for range 10 {
		w.must("POST", "/", "x")
	}
	broken := newInstance(t)
	broken.broken.Store(true)
	w = newFixture(t, 100, broken.URL, broken.URL, broken.URL)
	for range 3 {
		before := broken.hits.Load()
		if _, err := w.ask("POST", "/", "x"); err == nil || broken.hits.Load() != before+1 {
			t.Errorf("a POST to a service that hangs up was sent %d times: %v", broken.hits.Load()-before, err)
		}
	}
}

func TestBreaker(t *testing.T) {
	t.Parallel()
	a := newInstance(t)
	a.broken.Store(true)
	w := newFixture(t, 100, a.URL)
	state := func(want string) {
		t.Helper()
		const header = "# HELP headgate_upstream_breaker_state State of the circuit breaker of a service's address: 0 closed, 1 half-open, 2 open.\n# TYPE headgate_upstream_breaker_state gauge\n"
		host := strings.TrimPrefix(a.URL, "http://")
		if err := testutil.GatherAndCompare(w.metrics, strings.NewReader(header+`headgate_upstream_breaker_state{address="`+host+`",service="svc"} `+want+"\n"), "headgate_upstream_breaker_state"); err != nil {
			t.Error(err)
		}
	}
	for range 5 {
		if _, err := w.ask("POST", "/", "x"); err == nil || errors.Is(err, upstream.ErrUnavailable) {
			t.Fatalf("= %v before the breaker opened", err)
		}
	}
	if _, err := w.ask("POST", "/", "x"); !errors.Is(err, upstream.ErrUnavailable) || a.hits.Load() != 5 {
		t.Errorf("= %v, the service was asked %d times, want 5", err, a.hits.Load())
	}
	state("2")
	a.broken.Store(false)
	testkit.Eventually(t, func() error {
		res, err := w.ask("POST", "/", "x")
		if err == nil {
			res.Body.Close()
		}
		return err
	})
	state("0")
}

// TestCancelledRequestsAreNoFailures: requests that clients cancel do not open the circuit
// breaker.
func TestCancelledRequestsAreNoFailures(t *testing.T) {
	t.Parallel()
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close() // It accepts no connection, so no request is answered.
	w := newFixture(t, 100, "http://"+listener.Addr().String())
	for i := range 10 {
		ctx, cancel := context.WithCancel(t.Context())
		if i < 5 {
			cancel() // before a connection is there
		} else {
			time.AfterFunc(10*time.Millisecond, cancel)
		}
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://svc/", http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		res, err := w.RoundTrip(req)
		if err == nil {
			res.Body.Close()
		}
		if !errors.Is(err, context.Canceled) || errors.Is(err, upstream.ErrUnavailable) {
			t.Errorf("= %v", err)
		}
	}
}

func TestMaxInFlight(t *testing.T) {
	t.Parallel()
	a := newInstance(t)
	w := newFixture(t, 3, a.URL)
	var blocked []*http.Response
	for range 3 {
		res, err := w.ask("GET", "/blocked", "")
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		blocked = append(blocked, res)
	}
	if _, err := w.ask("GET", "/", ""); !errors.Is(err, upstream.ErrOverloaded) || a.hits.Load() != 3 {
		t.Errorf("a fourth request = %v, the service got %d", err, a.hits.Load())
	}
	blocked[0].Body.Close()
	w.must("GET", "/", "")
	close(a.unblock)
	for _, res := range blocked[1:] {
		if _, err := io.Copy(io.Discard, res.Body); err != nil {
			t.Error(err)
		}
		res.Body.Close()
	}
	for range 10 {
		w.must("GET", "/", "")
	}
}
