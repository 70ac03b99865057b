package upstream_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/headgate/headgate/pkg/testkit"
	"github.com/headgate/headgate/services/gateway/internal/upstream"
)

// replaceable is a service of one instance at a fixed address, like a container that is
// stopped before the next one is started.
type replaceable struct {
	t       *testing.T
	address string
	server  *http.Server
	crashed chan struct{} // requests to /blocked wait until it is closed
	blocked atomic.Int64
	hits    atomic.Int64
}

func newReplaceable(t *testing.T) *replaceable {
	t.Helper()
	r := &replaceable{t: t, address: "127.0.0.1:0"}
	r.start()
	t.Cleanup(func() { _ = r.server.Close() })
	return r
}

func (r *replaceable) start() {
	r.t.Helper()
	listener, err := (&net.ListenConfig{}).Listen(r.t.Context(), "tcp", r.address)
	if err != nil {
		r.t.Fatal(err)
	}
	r.address = listener.Addr().String()
	crashed := make(chan struct{})
	r.crashed = crashed
	r.server = &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if req.URL.Path == "/readyz" {
			return
		}
		body, err := io.ReadAll(req.Body)
		if err != nil {
			return
		}
		r.hits.Add(1)
		if req.URL.Path == "/blocked" {
			r.blocked.Add(1)
			<-crashed
			panic(http.ErrAbortHandler)
		}
		_, _ = w.Write(body)
	})}
	go func(server *http.Server) { _ = server.Serve(listener) }(r.server)
}

// stop ends the instance as SIGTERM does.
func (r *replaceable) stop() {
	r.t.Helper()
	if err := r.server.Shutdown(r.t.Context()); err != nil {
		r.t.Fatal(err)
	}
}

// crash ends the instance as SIGKILL does.
func (r *replaceable) crash() {
	_ = r.server.Close()
	close(r.crashed)
}

// waiting waits until n requests wait for the service.
func (w fixture) waiting(n float64) {
	w.t.Helper()
	testkit.Eventually(w.t, func() error {
		if got := w.sum("headgate_upstream_requests_waiting"); got != n {
			return fmt.Errorf("%v requests wait, want %v", got, n)
		}
		return nil
	})
}

func (w fixture) sum(metric string) (sum float64) {
	w.t.Helper()
	families, err := w.metrics.Gather()
	if err != nil {
		w.t.Fatal(err)
	}
	for _, family := range families {
		for _, m := range family.GetMetric() {
			if family.GetName() == metric {
				sum += m.GetGauge().GetValue()
			}
		}
	}
	return sum
}

// exchange sends a request and returns the body of the response, which is that of the request.
func (w fixture) exchange(ctx context.Context, method, path, body string) (string, error) {
	req, err := http.NewRequestWithContext(ctx, method, "http://svc"+path, strings.NewReader(body))
	if err != nil {
		return "", err
	}
	if method == http.MethodPut { // A body that is streamed.
		req.GetBody = nil
	}
	res, err := w.RoundTrip(req)
	if err != nil {
		return "", err
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	return string(text), err
}

// TestREL97NoRequestFailsWhileAServiceIsReplaced: requests that could not be sent wait for the
// next instance, whatever their method and body.
func TestREL97NoRequestFailsWhileAServiceIsReplaced(t *testing.T) {
	t.Parallel()
	service := newReplaceable(t)
	w := newFixtureOf(t, upstream.Options{MaxInFlight: 100, Wait: time.Minute}, "http://"+service.address)
	testkit.Run(t, w.Service)
	for range 3 {
		w.must("GET", "/", "") // Leaves a connection that the instance closes.
		service.stop()
		var group sync.WaitGroup
		for i := range 12 {
			method, body := []string{"GET", "POST", "PUT", "DELETE"}[i%4], fmt.Sprintf("body %d", i)
			group.Go(func() {
				if got, err := w.exchange(t.Context(), method, "/", body); err != nil || got != body {
					t.Errorf("%s = %q, %v", method, got, err)
				}
			})
		}
		w.waiting(12)
		service.start()
		group.Wait()
	}
	w.waiting(0)
	if n := w.sum("headgate_upstream_requests_in_flight"); n != 0 {
		t.Errorf("%v requests are still counted as in flight", n)
	}
}

// TestREL97CrashedService: a crash fails what was sent, and nothing else, although it has opened
// the circuit breaker. What was sent is not sent again.
func TestREL97CrashedService(t *testing.T) {
	t.Parallel()
	service := newReplaceable(t)
	w := newFixtureOf(t, upstream.Options{MaxInFlight: 100, Wait: time.Minute}, "http://"+service.address)
	testkit.Run(t, w.Service)
	var group sync.WaitGroup
	for range 8 {
		group.Go(func() {
			if _, err := w.exchange(t.Context(), "POST", "/blocked", "x"); err == nil {
				t.Error("a request that the crash has interrupted was answered")
			}
		})
	}
	testkit.Eventually(t, func() error {
		if n := service.blocked.Load(); n != 8 {
			return fmt.Errorf("%d of 8 requests are at the service", n)
		}
		return nil
	})
	service.crash()
	group.Wait()
	testkit.Eventually(t, func() error {
		if w.sum("headgate_upstream_reachable") != 0 {
			return errors.New("still reachable")
		}
		return nil
	})
	hits := service.hits.Load()
	for range 8 {
		group.Go(func() {
			if _, err := w.exchange(t.Context(), "POST", "/", "x"); err != nil {
				t.Errorf("after the crash: %v", err)
			}
		})
	}
	w.waiting(8)
	service.start()
	group.Wait()
	if got := service.hits.Load() - hits; got != 8 {
		t.Errorf("the service got %d requests, want 8", got)
	}
	if state := w.sum("headgate_upstream_breaker_state"); state != 0 {
		t.Errorf("the circuit breaker is in state %v", state)
	}
}

// TestREL97ServiceThatStaysAway: requests wait for a service only while it may be about to come
// back. Later ones fail at once, until it is there.
func TestREL97ServiceThatStaysAway(t *testing.T) {
	t.Parallel()
	service := newReplaceable(t)
	const wait = 2 * time.Second
	w := newFixtureOf(t, upstream.Options{MaxInFlight: 100, Wait: wait}, "http://"+service.address)
	testkit.Run(t, w.Service)
	service.stop()
	began := time.Now()
	if _, err := w.exchange(t.Context(), "POST", "/", "x"); !errors.Is(err, upstream.ErrUnavailable) {
		t.Errorf("= %v", err)
	}
	if took := time.Since(began); took < wait/2 {
		t.Errorf("the first request failed after %s", took)
	}
	began = time.Now()
	for range 100 {
		if _, err := w.exchange(t.Context(), "POST", "/", "x"); !errors.Is(err, upstream.ErrUnavailable) {
			t.Errorf("= %v", err)
		}
	}
	if took := time.Since(began); took > 10*wait {
		t.Errorf("100 further requests took %s", took)
	}
	service.start()
	testkit.Eventually(t, func() error {
		_, err := w.exchange(t.Context(), "POST", "/", "x")
		return err
	})
}

// TestREL97WaitingIsLimited: what waits counts as in flight, so a client has its share of it,
// and a client that leaves does not wait.
func TestREL97WaitingIsLimited(t *testing.T) {
	t.Parallel()
	w := newFixtureOf(t, upstream.Options{MaxInFlight: 4, MaxPerNetwork: 2, Wait: time.Minute}, nowhere(t))
	testkit.Run(t, w.Service)
	ctx, leave := context.WithCancel(t.Context())
	ended := make(chan error)
	ask := func(network string) {
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://svc/", strings.NewReader("x"))
		if err == nil {
			_, err = w.Do(req, upstream.Edit{}, upstream.Client{Network: network})
		}
		ended <- err
	}
	for i, tc := range []struct {
		network string
		want    error
	}{{"one", nil}, {"one", nil}, {"one", upstream.ErrTooMany}, {"two", nil}, {"two", nil}, {"three", upstream.ErrOverloaded}} {
		go ask(tc.network)
		if tc.want == nil {
			w.waiting([]float64{1, 2, 2, 3, 4}[i])
		} else if err := <-ended; !errors.Is(err, tc.want) {
			t.Errorf("%d = %v, want %v", i, err, tc.want)
		}
	}
	leave()
	for range 4 {
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("= %v", err)
		}
	}
	w.waiting(0)
}
