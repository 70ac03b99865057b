package api_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/headgate/headgate/pkg/testkit"
)

// TestEarlyAnswer: a service may respond before it has read the request; the client sees
// the response, not a failure to send.
func TestEarlyAnswer(t *testing.T) {
	t.Parallel()
	service := serveFunc(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Connection", "close")
		w.WriteHeader(http.StatusRequestEntityTooLarge)
		fmt.Fprint(w, "no more")
	})
	gateway := gatewayTo(t, service.URL, nil)
	// A client that sends its beginning and then waits.
	reader, writer := io.Pipe()
	defer writer.Close()
	go func() { _, _ = writer.Write([]byte("beginning")) }()
	res, got := send(t, "PUT", gateway+avatar, reader)
	if res.StatusCode != http.StatusRequestEntityTooLarge || got != "no more" {
		t.Errorf("= %d %q", res.StatusCode, got)
	}
}

// TestClosedConnections: if a service closes connections at any time, no request fails that
// certainly did not reach it or may be sent twice.
func TestClosedConnections(t *testing.T) {
	t.Parallel()
	const ok = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
	// Closed after each response, without announcing it.
	gateway := gatewayTo(t, rawService(t, func(int64) (string, bool) { return ok, true }), nil)
	for i := range 50 {
		method := []string{"GET", "POST"}[i%2]
		if res, got := send(t, method, gateway+"/api/v1/auth/x", strings.NewReader("{}")); res.StatusCode != http.StatusOK || got != "ok" {
			// The close may cross the request on its way; such a POST may have been read.
			if method == "GET" || res.StatusCode != http.StatusBadGateway {
				t.Errorf("%s %d = %d %q", method, i, res.StatusCode, got)
			}
		}
	}
	// Closed instead of the second answer on a connection, when the request was read.
	var reached atomic.Int64
	gateway = gatewayTo(t, rawService(t, func(n int64) (string, bool) {
		reached.Add(1)
		return map[bool]string{true: ok, false: ""}[n%2 == 1], n%2 == 0
	}), nil)
	for i := range 20 {
		if res, _ := send(t, "GET", gateway+"/api/v1/auth/x", http.NoBody); res.StatusCode != http.StatusOK {
			t.Errorf("GET %d = %d", i, res.StatusCode)
		}
	}
	reached.Store(0)
	counts := map[int]int{}
	for range 20 {
		res, _ := send(t, "POST", gateway+"/api/v1/auth/x", strings.NewReader("{}"))
		counts[res.StatusCode]++
	}
	if counts[200]+counts[502] != 20 || reached.Load() != 20 {
		t.Errorf("answers = %v, the service saw %d of 20 requests", counts, reached.Load())
	}
}

// TestBadAnswers: an invalid response is 502, and an interrupted one is not taken for a
// complete one.
func TestBadAnswers(t *testing.T) {
	t.Parallel()
	for name, text := range map[string]string{
		"nothing":              "",
		"nonsense":             "hello\r\n\r\n",
		"a bad status":         "HTTP/1.1 abc\r\n\r\n",
		"two lengths":          "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nabc",
		"a negative length":    "HTTP/1.1 200 OK\r\nContent-Length: -2\r\n\r\nabc",
		"an endless header":    "HTTP/1.1 200 OK\r\nX: " + strings.Repeat("x", 200_000) + "\r\n\r\n",
		"half a header":        "HTTP/1.1 200 OK\r\nX-Half: ",
		"half a short body":    "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nabc",
		"a switch of protocol": "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			gateway := gatewayTo(t, rawService(t, func(int64) (string, bool) { return text, true }), nil)
			res, got := send(t, "POST", gateway+"/api/v1/auth/x", strings.NewReader("{}"))
			if res.StatusCode != http.StatusBadGateway || !strings.Contains(got, `"code":"bad_gateway"`) || res.Header.Get("Retry-After") == "" {
				t.Errorf("= %d %s", res.StatusCode, got)
			}
		})
	}
	for _, text := range []string{
		"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n" + strings.Repeat("abc", 20_000),
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
	} {
		gateway := gatewayTo(t, rawService(t, func(int64) (string, bool) { return text, true }), nil)
		if _, got, err := trySend(t.Context(), "GET", gateway+"/api/v1/auth/x", http.NoBody); err == nil {
			t.Errorf("%.100q looks whole: %.100q", text, got)
		}
	}
}

// TestTimeouts: the gateway does not wait for a service that does not begin its response, or
// does not continue it.
func TestTimeouts(t *testing.T) {
	t.Parallel()
	service := serveFunc(t, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body) // A server looks for the client's end only then.
		if r.URL.RawQuery == "stall" {
			fmt.Fprint(w, "a beginning")
			_ = http.NewResponseController(w).Flush()
		}
		<-r.Context().Done()
	})
	gateway := gatewayTo(t, service.URL, func(s *setup) { s.upstream.Timeout = 300 * time.Millisecond })
	for _, method := range []string{"GET", "POST"} {
		began := time.Now()
		res, got := send(t, method, gateway+"/api/v1/auth/x", strings.NewReader("{}"))
		if took := time.Since(began); res.StatusCode != http.StatusGatewayTimeout || !strings.Contains(got, `"code":"gateway_timeout"`) || res.Header.Get("Retry-After") == "" || took > testkit.Timeout {
			t.Errorf("%s = %d %s after %s", method, res.StatusCode, got, took)
		}
	}
	gateway = gatewayTo(t, service.URL, func(s *setup) { s.upstream.Stall = time.Second })
	if _, got, err := trySend(t.Context(), "GET", gateway+"/api/v1/auth/x?stall", http.NoBody); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("a stalled answer = %q, %v", got, err)
	}
}

// TestCancellation: when a client cancels a request, the request to the service is
// cancelled.
func TestCancellation(t *testing.T) {
	t.Parallel()
	reached, gone := make(chan struct{}), make(chan struct{})
	service := serveFunc(t, func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body) // A server looks for the client's end only then.
		reached <- struct{}{}
		<-r.Context().Done()
		gone <- struct{}{}
	})
	gateway := gatewayTo(t, service.URL, func(s *setup) { s.upstream.Timeout = time.Minute })
	for _, method := range []string{"GET", "POST"} {
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() {
			_, _, err := trySend(ctx, method, gateway+"/api/v1/auth/x", strings.NewReader("{}"))
			done <- err
		}()
		<-reached
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("%s: %v", method, err)
		}
		select {
		case <-gone:
		case <-time.After(testkit.Timeout):
			t.Fatalf("%s: the request to the service was not cancelled", method)
		}
	}
}
