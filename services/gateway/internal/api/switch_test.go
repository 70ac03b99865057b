package api_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/headgate/headgate/pkg/testkit"
	"github.com/headgate/headgate/services/gateway/internal/api"
)

// echo is a service that switches protocols, and then returns every line.
func echo(t *testing.T) *httptest.Server {
	t.Helper()
	return serveFunc(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Upgrade") != "websocket" {
			fmt.Fprint(w, "plain")
			return
		}
		c, rw, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer c.Close()
		fmt.Fprintf(rw, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nX-For: %s\r\n\r\n", r.Header.Get("X-Forwarded-For"))
		if err := rw.Flush(); err != nil {
			t.Error(err)
		}
		_, _ = io.Copy(c, rw) // Ends when the client goes.
	})
}

// TestSEC58Upgrade: a connection can switch protocols only where its route allows it.
func TestSEC58Upgrade(t *testing.T) {
	t.Parallel()
	service := echo(t)
	gateway := gatewayTo(t, service.URL, func(s *setup) {
		s.routes = []api.Route{{Path: "/api/v1/user", Service: "user", Upgrade: true}, {Path: "/api/v1/auth", Service: "auth"}}
	})
	upgrade := func(line, body string) (net.Conn, *bufio.Reader, *http.Response) {
		t.Helper()
		c := dial(t, strings.TrimPrefix(gateway, "http://"), testkit.Timeout)
		fmt.Fprintf(c, "%s\r\nHost: x\r\nConnection: Upgrade, X-Forwarded-For\r\nUpgrade: websocket\r\nX-Forwarded-For: 1.2.3.4\r\nContent-Length: %d\r\n\r\n%s", line, len(body), body)
		r := bufio.NewReader(c)
		res, err := http.ReadResponse(r, nil)
		if err != nil {
			t.Fatal(err)
		}
		return c, r, res
	}
	c, r, res := upgrade("GET /api/v1/user/live HTTP/1.1", "")
	if res.StatusCode != http.StatusSwitchingProtocols || res.Header.Get("Upgrade") != "websocket" || res.Header.Get("X-For") != "127.0.0.1" {
		t.Fatalf("= %d %v", res.StatusCode, res.Header)
	}
	for _, line := range []string{"one\n", "two\n"} {
		if _, err := io.WriteString(c, line); err != nil {
			t.Fatal(err)
		}
		if got, err := r.ReadString('\n'); err != nil || got != line {
			t.Errorf("sent %q, got %q, %v", line, got, err)
		}
	}
	for name, tc := range map[string]struct{ line, body string }{
		"where no route allows it":         {"GET /api/v1/auth/live HTTP/1.1", ""},
		"in HTTP/1.0":                      {"GET /api/v1/user/live HTTP/1.0", ""},
		"while a body is still on its way": {"PUT " + avatar + " HTTP/1.1", "body"},
	} {
		_, _, res = upgrade(tc.line, tc.body)
		if body, err := io.ReadAll(res.Body); err != nil || res.StatusCode != http.StatusOK || string(body) != "plain" {
			t.Errorf("%s = %d %q, %v", name, res.StatusCode, body, err)
		}
	}
}

// TestREL21SlowService: a service that hangs uses up its own share of requests, and the
// others respond as before.
func TestREL21SlowService(t *testing.T) {
	t.Parallel()
	unblock := make(chan struct{})
	var blocked atomic.Int64
	service := serveFunc(t, func(_ http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "/api/v1/user") {
			blocked.Add(1)
			select {
			case <-unblock:
			case <-r.Context().Done():
			}
		}
	})
	const maxInFlight = 4
	gateway := gatewayTo(t, service.URL, func(s *setup) { s.upstream.MaxInFlight = maxInFlight })
	slow := make(chan error, maxInFlight)
	for range maxInFlight {
		go func() {
			res, _, err := trySend(t.Context(), "GET", gateway+"/api/v1/user/me", http.NoBody)
			if err == nil && res.StatusCode != http.StatusOK {
				err = fmt.Errorf("status %d", res.StatusCode)
			}
			slow <- err
		}()
	}
	testkit.Eventually(t, func() error {
		if got := blocked.Load(); got != maxInFlight {
			return fmt.Errorf("%d requests are in flight", got)
		}
		return nil
	})
	res, text := send(t, "GET", gateway+"/api/v1/user/me", http.NoBody)
	if res.StatusCode != http.StatusServiceUnavailable || !strings.Contains(text, "service_overloaded") || res.Header.Get("Retry-After") == "" {
		t.Errorf("one more to the same service = %d %s", res.StatusCode, text)
	}
	for range 20 {
		if res, _ := send(t, "GET", gateway+"/api/v1/auth/x", http.NoBody); res.StatusCode != http.StatusOK {
			t.Errorf("another service = %d", res.StatusCode)
		}
	}
	close(unblock)
	for range maxInFlight {
		if err := <-slow; err != nil {
			t.Error(err)
		}
	}
}
