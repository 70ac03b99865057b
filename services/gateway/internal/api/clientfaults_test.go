package api_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/headgate/headgate/pkg/testkit"
	"github.com/headgate/headgate/pkg/web"
	"github.com/headgate/headgate/services/gateway/internal/api"
	"github.com/headgate/headgate/services/gateway/internal/upstream"
)

const putChunks = "PUT " + avatar + " HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nTransfer-Encoding: chunked\r\n\r\n"

// readAll is a service that reads every body.
func readAll(w http.ResponseWriter, r *http.Request) {
	if _, err := io.Copy(io.Discard, r.Body); err == nil {
		_, _ = io.WriteString(w, "read")
	}
}

// TestSEC140InvalidBodies: a client that sends invalid bodies makes no other client's
// request fail.
func TestSEC140InvalidBodies(t *testing.T) {
	t.Parallel()
	piece := fmt.Sprintf("%x\r\n%s\r\n", 1<<20, strings.Repeat("x", 1<<20))
	for name, tc := range map[string]struct {
		text, code string
		status     int
	}{
		"not a chunk":           {putChunks + "zz\r\n", "malformed_body", http.StatusBadRequest},
		"not a chunk, later":    {putChunks + piece + "zz\r\n", "malformed_body", http.StatusBadRequest},
		"larger than it may be": {putChunks + strings.Repeat(piece, 6), "body_too_large", http.StatusRequestEntityTooLarge},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			gateway := gatewayTo(t, serveFunc(t, readAll).URL, nil)
			for range 6 {
				if a := firstAnswer(t, strings.TrimPrefix(gateway, "http://"), tc.text); a.status != tc.status || !strings.Contains(a.body, `"code":"`+tc.code+`"`) {
					t.Errorf("= %d %s, want %d %s", a.status, a.body, tc.status, tc.code)
				}
			}
			if res, got := send(t, "GET", gateway+"/api/v1/user/me", http.NoBody); res.StatusCode != http.StatusOK {
				t.Errorf("the next client got %d %s", res.StatusCode, got)
			}
		})
	}
}

// TestFailureWhileClientSends: a client that pauses in its body gets the response to a failure
// at once.
func TestFailureWhileClientSends(t *testing.T) {
	t.Parallel()
	gateway := gatewayTo(t, serveFunc(t, func(w http.ResponseWriter, r *http.Request) {
		_, readErr := io.ReadFull(r.Body, make([]byte, 5))
		c, _, err := http.NewResponseController(w).Hijack()
		if err = errors.Join(readErr, err); err == nil {
			err = c.Close()
		}
		if err != nil {
			t.Error(err)
		}
	}).URL, nil)
	c := dial(t, strings.TrimPrefix(gateway, "http://"), testkit.Timeout)
	if _, err := io.WriteString(c, "PUT "+avatar+" HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nContent-Length: 100000\r\n\r\n"+strings.Repeat("x", 10_000)); err != nil {
		t.Fatal(err)
	}
	res, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusBadGateway || !res.Close {
		t.Errorf("= %d, closed: %t", res.StatusCode, res.Close)
	}
}

// TestSEC140LargestHeaders: whatever header the gateway accepts, the services accept it from the
// gateway, which may have to write it at greater length.
func TestSEC140LargestHeaders(t *testing.T) {
	t.Parallel()
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	service := web.NewServer(web.Listener{}, web.NewRouter([]web.Route{{Method: http.MethodGet, Path: "/{any:.*}", Access: web.Anyone, Handler: func(w http.ResponseWriter, _ *http.Request) error {
		return web.OK(w, http.StatusOK, nil)
	}}}, web.Options{Log: testkit.Log(t), Metrics: prometheus.NewRegistry()}), testkit.Log(t))
	service.FromGateway = true
	testkit.Run(t, serving{service, listener})
	g := newGateway(t, testkit.Redis(t), api.RateLimits{})
	addr := exposed(t, g, func(s *setup) {
		s.addresses["auth"] = upstream.Addresses{&url.URL{Scheme: "http", Host: listener.Addr().String()}}
	})
	for name, fill := range map[string]func(n int) (path, lines string){
		"one header":            func(n int) (string, string) { return "x", "X-Fill: " + strings.Repeat("x", n) + "\r\n" },
		"a long token":          func(n int) (string, string) { return "x", "Authorization: Bearer " + strings.Repeat("x", n) + "\r\n" },
		"lines that get longer": func(n int) (string, string) { return "x", strings.Repeat("a:\n", n/3) },
		"a path to be encoded":  func(n int) (string, string) { return strings.Repeat("\u00e9", n/2), "" },
	} {
		counts := map[int]int{}
		for n := 18_000; n < 26_000; n += 200 {
			path, lines := fill(n)
			// net/http does not count what it has read with the request before.
			answers, _ := exchange(t, addr, "GET /livez HTTP/1.1\r\nHost: x\r\n\r\nGET /api/v1/auth/"+path+" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"+lines+"\r\n")
			a := answers[len(answers)-1]
			counts[a.status]++
			if a.status != http.StatusOK && !strings.Contains(a.body, `"code":"header_too_large"`) {
				t.Errorf("%s, %d bytes = %d %s", name, n, a.status, a.body)
			}
		}
		if counts[http.StatusOK] < 10 || counts[http.StatusRequestHeaderFieldsTooLarge] < 5 {
			t.Errorf("%s: %v, want the limit in between", name, counts)
		}
	}
}

// serving is a server on an open listener.
type serving struct {
	*web.Server

	listener net.Listener
}

func (s serving) Run(ctx context.Context) error { return s.Serve(ctx, s.listener) }
