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
	hold    chan struct{} // requests to /held wait for it
}

func newInstance(t *testing.T) *instance {
	t.Helper()
	i := &instance{hold: make(chan struct{})}
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
		if r.URL.Path == "/held" {
			w.(http.Flusher).Flush()
			select {
			case <-i.hold:
			case <-r.Context().Done():
			}
		}
		_, _ = io.WriteString(w, "ok")
	}))
	t.Cleanup(i.Close)
	return i
}

type world struct {
	*upstream.Service
	t       *testing.T
	metrics *prometheus.Registry
}

// newWorld returns the way to a service at the addresses. Nobody probes them before
// testkit.Run.
func newWorld(t *testing.T, maxInFlight int, addresses ...string) world {
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
	return world{upstream.New("svc", at, upstream.Options{
		Timeout: 5 * time.Second, Stall: 5 * time.Second, MaxInFlight: maxInFlight, Log: testkit.Log(t), Metrics: upstream.NewMetrics(metrics),
	}), t, metrics}
}

// ask returns the answer with its body yet to be read.
func (w world) ask(method, path, body string) (*http.Response, error) {
	w.t.Helper()
	req, err := http.NewRequestWithContext(w.t.Context(), method, "http://svc"+path, strings.NewReader(body))
	if err != nil {
		w.t.Fatal(err)
	}
	return w.RoundTrip(req)
}

func (w world) must(method, path, body string) {
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

// nowhere returns an address at which nobody listens.
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
	w := newWorld(t, 100, a.URL, b.URL)
	var held []*http.Response
	for range 10 {
		res, err := w.ask("GET", "/held", "")
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		held = append(held, res)
	}
	if a.hits.Load() != 5 || b.hits.Load() != 5 {
		t.Errorf("10 requests at a time are shared as %d and %d", a.hits.Load(), b.hits.Load())
	}
	for _, res := range held {
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
	w := newWorld(t, 100, a.URL, b.URL)
	testkit.Run(t, w.Service)
	// Until the first probe a may get some.
	testkit.Eventually(t, 10*time.Second, func() error {
		before := a.hits.Load()
		for range 20 {
			w.must("POST", "/", "x")
		}
		if a.hits.Load() != before {
			return errors.New("the address that is not ready gets requests")
		}
		return nil
	})
	if !w.Up() {
		t.Error("not up, though one address is")
	}
	a.unready.Store(false)
	testkit.Eventually(t, 10*time.Second, func() error {
		before := a.hits.Load()
		for range 4 {
			w.must("POST", "/", "x")
		}
		if a.hits.Load() == before {
			return errors.New("the address that is ready again gets nothing")
		}
		return nil
	})
	// If a probe is wrong of all, they are asked all the same.
	a.unready.Store(true)
	b.unready.Store(true)
	testkit.Eventually(t, 10*time.Second, func() error {
		if w.Up() {
			return errors.New("still up")
		}
		return nil
	})
	w.must("POST", "/", "x")
}

// TestNotSentGoesElsewhere: what certainly reached nobody goes to the next address,
// whatever its method; what may have been read does not.
func TestNotSentGoesElsewhere(t *testing.T) {
	t.Parallel()
	gone, there := nowhere(t), newInstance(t)
	w := newWorld(t, 100, gone, there.URL)
	for range 10 {
		w.must("POST", "/", "x")
	}
	broken := newInstance(t)
	broken.broken.Store(true)
	w = newWorld(t, 100, broken.URL, broken.URL, broken.URL)
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
	w := newWorld(t, 100, a.URL)
	state := func(want string) {
		t.Helper()
		const header = "# HELP headgate_upstream_breaker_state Whether a service's address is left alone because it failed: 0 no, 1 one request tries it, 2 yes.\n# TYPE headgate_upstream_breaker_state gauge\n"
		host := strings.TrimPrefix(a.URL, "http://")
		if err := testutil.GatherAndCompare(w.metrics, strings.NewReader(header+`headgate_upstream_breaker_state{address="`+host+`",service="svc"} `+want+"\n"), "headgate_upstream_breaker_state"); err != nil {
			t.Error(err)
		}
	}
	for range 5 {
		if _, err := w.ask("POST", "/", "x"); err == nil || errors.Is(err, upstream.ErrAway) {
			t.Fatalf("= %v before the breaker opened", err)
		}
	}
	if _, err := w.ask("POST", "/", "x"); !errors.Is(err, upstream.ErrAway) || a.hits.Load() != 5 {
		t.Errorf("= %v, the service was asked %d times, want 5", err, a.hits.Load())
	}
	state("2")
	a.broken.Store(false)
	testkit.Eventually(t, 10*time.Second, func() error {
		res, err := w.ask("POST", "/", "x")
		if err == nil {
			res.Body.Close()
		}
		return err
	})
	state("0")
}

// TestClientsThatLeaveAreNoFailures: it takes more than impatient clients to have a
// service left alone.
func TestClientsThatLeaveAreNoFailures(t *testing.T) {
	t.Parallel()
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close() // It accepts nobody, and so nobody is answered.
	w := newWorld(t, 100, "http://"+listener.Addr().String())
	for range 10 {
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(10*time.Millisecond, cancel)
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://svc/", http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		res, err := w.RoundTrip(req)
		if err == nil {
			res.Body.Close()
		}
		if !errors.Is(err, context.Canceled) || errors.Is(err, upstream.ErrAway) {
			t.Errorf("= %v", err)
		}
	}
}

func TestMaxInFlight(t *testing.T) {
	t.Parallel()
	a := newInstance(t)
	w := newWorld(t, 3, a.URL)
	var held []*http.Response
	for range 3 {
		res, err := w.ask("GET", "/held", "")
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		held = append(held, res)
	}
	if _, err := w.ask("GET", "/", ""); !errors.Is(err, upstream.ErrOverloaded) || a.hits.Load() != 3 {
		t.Errorf("a fourth request = %v, the service got %d", err, a.hits.Load())
	}
	held[0].Body.Close()
	w.must("GET", "/", "")
	close(a.hold)
	for _, res := range held[1:] {
		if _, err := io.Copy(io.Discard, res.Body); err != nil {
			t.Error(err)
		}
		res.Body.Close()
	}
	for range 10 {
		w.must("GET", "/", "")
	}
}
