package web_test

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/headgate/headgate/pkg/testkit"
	"github.com/headgate/headgate/pkg/web"
)

// listen serves handler on TCP until the end of the test, and returns a connection to it.
func listen(t *testing.T, handler http.HandlerFunc) net.Conn {
	t.Helper()
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- web.NewServer(web.Listener{}, handler, testkit.Log(t)).Serve(ctx, listener) }()
	c, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	if err := c.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		c.Close()
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return c
}

// TestSEC44BodyIsNoRawError: what a handler writes reaches the client as it is, even if it looks
// like an error of net/http.
func TestSEC44BodyIsNoRawError(t *testing.T) {
	t.Parallel()
	// net/http passes a piece as long as this one on in a write of its own.
	text := "HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\n\r\n" + strings.Repeat("x", 10_000)
	c := listen(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", strconv.Itoa(len(text)))
		if err := http.NewResponseController(w).Flush(); err != nil {
			t.Error(err)
		}
		_, _ = io.WriteString(w, text)
	})
	r := bufio.NewReader(c)
	for range 2 {
		wantBody(t, c, r, text)
	}
}

// wantBody sends a request and checks the body of its response.
func wantBody(t *testing.T, c net.Conn, r *bufio.Reader, want string) {
	t.Helper()
	if _, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	res, err := http.ReadResponse(r, nil)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(res.Body); err != nil || string(got) != want {
		t.Fatalf("got %d bytes, %.200q, %v", len(got), got, err)
	}
}

// TestRawErrors: errors of net/http have the form of all others, also after other requests on
// the same connection.
func TestRawErrors(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]struct {
		status int
		code   string
	}{
		"GET / HTTP/1.1\r\nHost: x\r\nbad header\r\n\r\n":                               {400, "malformed_request"},
		"GET / HTTP/1.1\r\nHost: x\r\nExpect: a miracle\r\n\r\n":                        {417, "unsupported_request"},
		"GET / HTTP/1.0\r\nExpect: a miracle\r\n\r\n":                                   {417, "unsupported_request"},
		"GET / HTTP/3.0\r\nHost: x\r\n\r\n":                                             {505, "unsupported_request"},
		"GET / HTTP/1.1\r\nHost: x\r\nX-A: " + strings.Repeat("x", 30<<10) + "\r\n\r\n": {431, "header_too_large"},
	} {
		for before := range 3 {
			c := listen(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "fine") })
			r := bufio.NewReader(c)
			for range before {
				wantBody(t, c, r, "fine")
			}
			go func() { _, _ = io.WriteString(c, text) }() // The server may not read it all.
			res, err := http.ReadResponse(r, nil)
			if err != nil {
				t.Fatal(err)
			}
			var got struct{ Code, RequestID string }
			err = json.NewDecoder(res.Body).Decode(&got)
			if err != nil || res.StatusCode != want.status || got.Code != want.code || got.RequestID == "" || got.RequestID != res.Header.Get("X-Request-Id") || res.Header.Get("X-Content-Type-Options") != "nosniff" {
				t.Errorf("%.80q after %d requests = %d %v %+v, %v", text, before, res.StatusCode, res.Header, got, err)
			}
		}
	}
}

// TestAsterisk: a request for the whole server goes to the handler, as all others.
func TestAsterisk(t *testing.T) {
	t.Parallel()
	c := listen(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Path", r.URL.Path)
	})
	if _, err := io.WriteString(c, "OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	res, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil || res.Header.Get("X-Path") != "*" {
		t.Errorf("= %+v, %v", res, err)
	}
}
