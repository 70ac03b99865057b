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
	"time"

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

// TestSEC58Upgrade: a connection switches protocols where its route says so, and
// nowhere else.
func TestSEC58Upgrade(t *testing.T) {
	t.Parallel()
	service := echo(t)
	gateway := gatewayTo(t, service.URL, func(s *setup) {
		s.routes = []api.Route{{Path: "/api/v1/user", Service: "user", Upgrade: true}, {Path: "/api/v1/auth", Service: "auth"}}
	})
	upgrade := func(path string) (net.Conn, *bufio.Reader, *http.Response) {
		t.Helper()
		c := dial(t, strings.TrimPrefix(gateway, "http://"), 10*time.Second)
		fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, X-Forwarded-For\r\nUpgrade: websocket\r\nX-Forwarded-For: 1.2.3.4\r\n\r\n", path)
		r := bufio.NewReader(c)
		res, err := http.ReadResponse(r, nil)
		if err != nil {
			t.Fatal(err)
		}
		return c, r, res
	}
	c, r, res := upgrade("/api/v1/user/live")
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
	_, _, res = upgrade("/api/v1/auth/live")
	if body, err := io.ReadAll(res.Body); err != nil || res.StatusCode != http.StatusOK || string(body) != "plain" {
		t.Errorf("where no route says so = %d %q, %v", res.StatusCode, body, err)
	}
}

// TestREL21SlowService: a service that hangs takes what it has of its own, and the
// others answer as before.
func TestREL21SlowService(t *testing.T) {
	t.Parallel()
	hold := make(chan struct{})
	var held atomic.Int64
	service := serveFunc(t, func(_ http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "/api/v1/user") {
			held.Add(1)
			select {
			case <-hold:
			case <-r.Context().Done():
			}
		}
	})
	const most = 4
	gateway := gatewayTo(t, service.URL, func(s *setup) { s.upstream.MaxInFlight = most })
	slow := make(chan error, most)
	for range most {
		go func() {
			res, _, err := trySend(t.Context(), "GET", gateway+"/api/v1/user/me", http.NoBody)
			if err == nil && res.StatusCode != http.StatusOK {
				err = fmt.Errorf("status %d", res.StatusCode)
			}
			slow <- err
		}()
	}
	testkit.Eventually(t, 10*time.Second, func() error {
		if got := held.Load(); got != most {
			return fmt.Errorf("the service holds %d requests", got)
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
	close(hold)
	for range most {
		if err := <-slow; err != nil {
			t.Error(err)
		}
	}
}
