package upstream_test

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/headgate/headgate/pkg/testkit"
	"github.com/headgate/headgate/services/gateway/internal/upstream"
)

// stream sends a request of a client that pauses in its body until the test ends.
func (w fixture) stream() (*http.Response, error) {
	body, client := io.Pipe()
	w.t.Cleanup(func() { client.CloseWithError(io.ErrUnexpectedEOF) })
	go func() { _, _ = client.Write([]byte("hello")) }()
	req, err := http.NewRequestWithContext(w.t.Context(), http.MethodPut, "http://svc/", body)
	if err != nil {
		w.t.Fatal(err)
	}
	return w.RoundTrip(req)
}

// TestSEC134PausesAreNoFailures: a service that gives up waiting for the rest of a body opens
// no circuit breaker.
func TestSEC134PausesAreNoFailures(t *testing.T) {
	t.Parallel()
	service := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		control := http.NewResponseController(w)
		if err := control.SetReadDeadline(time.Now().Add(1500 * time.Millisecond)); err != nil {
			t.Error(err)
		}
		if _, err := io.Copy(io.Discard, r.Body); err == nil {
			return
		}
		if c, _, err := control.Hijack(); err != nil {
			t.Error(err)
		} else {
			c.Close()
		}
	}))
	t.Cleanup(service.Close)
	w := newFixture(t, 100, service.URL)
	failed := make(chan error)
	for range 8 {
		go func() {
			_, err := w.stream()
			failed <- err
		}()
	}
	for range 8 {
		if err := <-failed; err == nil || errors.Is(err, upstream.ErrUnavailable) {
			t.Errorf("= %v, want the end of the connection", err)
		}
	}
	w.must("GET", "/", "")
}

// TestSEC134SlowClientIsNoTest: the request that tests an address whose breaker was open is
// none whose client is slow, so all others get their responses.
func TestSEC134SlowClientIsNoTest(t *testing.T) {
	t.Parallel()
	a := newInstance(t)
	a.broken.Store(true)
	w := newFixture(t, 100, a.URL)
	for range 5 {
		if _, err := w.ask("POST", "/", "x"); err == nil {
			t.Fatal("a broken service answers")
		}
	}
	a.broken.Store(false)
	hits := a.hits.Load()
	go func() { // as soon as the breaker is half-open
		for {
			if _, err := w.stream(); !errors.Is(err, upstream.ErrUnavailable) || w.t.Context().Err() != nil {
				return
			}
		}
	}()
	testkit.Eventually(t, func() error {
		if a.hits.Load() == hits {
			return errors.New("the slow request did not reach the service")
		}
		return nil
	})
	w.must("GET", "/", "")
}

// TestSEC134Shares: the limits of a user and of a network count what is in flight, each on its
// own, and do not apply to the gateway's own requests.
func TestSEC134Shares(t *testing.T) {
	t.Parallel()
	a := newInstance(t)
	w := newFixtureOf(t, upstream.Options{MaxInFlight: 100, MaxPerUser: 2, MaxPerNetwork: 3}, a.URL)
	begin := func(from upstream.Client) (*http.Response, error) {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://svc/blocked", http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		res, err := w.Do(req, upstream.Edit{}, from)
		if err == nil {
			t.Cleanup(func() { res.Body.Close() })
		}
		return res, err
	}
	var first *http.Response
	for i, tc := range []struct {
		from upstream.Client
		want error
	}{
		{upstream.Client{User: "ann", Network: "one"}, nil},
		{upstream.Client{User: "ann", Network: "two"}, nil},
		{upstream.Client{User: "ann", Network: "three"}, upstream.ErrTooMany},
		{upstream.Client{User: "bob", Network: "one"}, nil},
		{upstream.Client{Network: "one"}, nil},
		{upstream.Client{Network: "one"}, upstream.ErrTooMany},
		{upstream.Client{User: "eve", Network: "one"}, upstream.ErrTooMany},
		{upstream.Client{User: "eve", Network: "two"}, nil},
		{upstream.Client{}, nil},
	} {
		res, err := begin(tc.from)
		if !errors.Is(err, tc.want) {
			t.Errorf("%d: %+v = %v, want %v", i, tc.from, err, tc.want)
		}
		if i == 0 {
			first = res
		}
	}
	first.Body.Close()
	if _, err := begin(upstream.Client{User: "ann", Network: "one"}); err != nil {
		t.Errorf("after one has ended: %v", err)
	}
}
