package api_test

import (
	"bufio"
	"context"
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

	"github.com/headgate/headgate/pkg/testkit"
	"github.com/headgate/headgate/services/gateway/internal/api"
	"github.com/headgate/headgate/services/gateway/internal/upstream"
)

// gatewayTo returns the address of a gateway to a service at an address.
func gatewayTo(t *testing.T, service string, change func(*setup)) string {
	t.Helper()
	at, err := url.Parse(service)
	if err != nil {
		t.Fatal(err)
	}
	g := &gateway{t: t, issuer: testkit.NewIssuer(t), upstream: newFakeService(t)}
	server := httptest.NewServer(handlerFor(t, g, testkit.Redis(t), api.RateLimits{}, func(s *setup) {
		s.addresses["auth"] = upstream.Addresses{at}
		// Bodies to this one are streamed; it needs no token here.
		s.addresses["user"] = upstream.Addresses{at}
		s.routes = []api.Route{{Path: "/api/v1/auth", Service: "auth"}, {Path: "/api/v1/user", Service: "user"}}
		if change != nil {
			change(s)
		}
	}))
	t.Cleanup(server.Close)
	return server.URL
}

// serveFunc returns a service that is always ready.
func serveFunc(t *testing.T, h http.HandlerFunc) *httptest.Server {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/readyz" {
			h(w, r)
		}
	}))
	t.Cleanup(server.Close)
	return server
}

// rawService responds to the nth request on a connection with exactly the text that answer
// returns, and closes the connection afterwards if closed.
func rawService(t *testing.T, answer func(n int64) (text string, closed bool)) string {
	t.Helper()
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	go func() {
		for {
			c, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				r, n := bufio.NewReader(c), int64(0)
				for {
					req, err := http.ReadRequest(r)
					if err != nil {
						return
					}
					if _, err := io.Copy(io.Discard, req.Body); err != nil {
						return
					}
					if req.URL.Path == "/readyz" {
						fmt.Fprint(c, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
						continue
					}
					n++
					text, closed := answer(n)
					if _, err := io.WriteString(c, text); err != nil || closed {
						return
					}
				}
			}()
		}
	}()
	return "http://" + listener.Addr().String()
}

func send(t *testing.T, method, address string, body io.Reader, header ...string) (*http.Response, string) {
	t.Helper()
	res, text, err := trySend(t.Context(), method, address, body, header...)
	if err != nil {
		t.Fatalf("%s %s: %v", method, address, err)
	}
	return res, text
}

func trySend(ctx context.Context, method, address string, body io.Reader, header ...string) (*http.Response, string, error) {
	req, err := http.NewRequestWithContext(ctx, method, address, body)
	if err != nil {
		return nil, "", err
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, "", err
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	return res, string(text), err
}

const avatar = "/api/v1/user/me/avatar"

// TestBodiesOfAnyForm sends and receives bodies in every form, shorter and longer than any
// buffer.
func TestBodiesOfAnyForm(t *testing.T) {
	t.Parallel()
	service := serveFunc(t, func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		w.Header().Set("X-Got", strconv.FormatInt(r.ContentLength, 10))
		if r.URL.RawQuery == "length" {
			w.Header().Set("Content-Length", strconv.Itoa(len(body)))
		}
		for piece := range slices.Chunk(body, 10_000) {
			if _, err := w.Write(piece); err != nil {
				return
			}
			_ = http.NewResponseController(w).Flush()
		}
	})
	gateway := gatewayTo(t, service.URL, nil)
	for _, size := range []int{1, 4095, 4096, 4097, 65_535, 3_000_000} {
		for _, query := range []string{"length", "chunked"} {
			content := strings.Repeat("abcdefghijk\n", size/12+1)[:size]
			res, got := send(t, "PUT", gateway+avatar+"?"+query, strings.NewReader(content))
			if got != content || res.Header.Get("X-Got") != strconv.Itoa(size) {
				t.Errorf("%d bytes with a length, answer %s: got %d, the service got %s", size, query, len(got), res.Header.Get("X-Got"))
			}
			// A reader of unknown length is sent in chunks.
			res, got = send(t, "PUT", gateway+avatar+"?"+query, io.MultiReader(strings.NewReader(content)))
			if got != content || res.Header.Get("X-Got") != "-1" {
				t.Errorf("%d bytes in chunks, answer %s: got %d, the service got %s", size, query, len(got), res.Header.Get("X-Got"))
			}
		}
	}
	// Small bodies of other routes are read before they go on, and so get a length.
	res, got := send(t, "POST", gateway+"/api/v1/auth/x", io.MultiReader(strings.NewReader("abc")))
	if got != "abc" || res.Header.Get("X-Got") != "3" {
		t.Errorf("got %q, the service got %s", got, res.Header.Get("X-Got"))
	}
}

// TestPiecesComeAtOnce: a response without a length is flushed with every write.
func TestPiecesComeAtOnce(t *testing.T) {
	t.Parallel()
	var next sync.Map // of the query to a channel of pieces
	service := serveFunc(t, func(w http.ResponseWriter, r *http.Request) {
		pieces, _ := next.Load(r.URL.RawQuery)
		w.Header().Set("Content-Type", "text/event-stream")
		_ = http.NewResponseController(w).Flush()
		for {
			select {
			case piece := <-pieces.(chan string):
				fmt.Fprint(w, piece)
				_ = http.NewResponseController(w).Flush()
			case <-r.Context().Done():
				return
			}
		}
	})
	gateway := gatewayTo(t, service.URL, nil)
	pieces := make(chan string)
	name := url.QueryEscape(t.Name())
	next.Store(name, pieces)
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, gateway+"/api/v1/auth/stream?"+name, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	buffer := make([]byte, 16)
	for range 3 {
		pieces <- "piece"
		if n, err := res.Body.Read(buffer); err != nil || string(buffer[:n]) != "piece" {
			t.Fatalf("got %q, %v", buffer[:n], err)
		}
	}
}

// TestNoBodies: responses without a body are passed on as they are, and connections are
// reused after the others.
func TestNoBodies(t *testing.T) {
	t.Parallel()
	service := serveFunc(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Etag", `"1"`)
		w.Header().Set("X-From", r.RemoteAddr)
		switch r.URL.RawQuery {
		case "204":
			w.WriteHeader(http.StatusNoContent)
		case "304":
			w.WriteHeader(http.StatusNotModified)
		default:
			w.Header().Set("Content-Length", "5")
			fmt.Fprint(w, "hello")
		}
	})
	gateway := gatewayTo(t, service.URL, nil)
	for range 2 {
		for _, tc := range []struct {
			method, query, length string
			status                int
		}{{"HEAD", "", "5", 200}, {"GET", "204", "", 204}, {"GET", "304", "", 304}, {"HEAD", "304", "", 304}, {"POST", "204", "", 204}, {"GET", "", "5", 200}} {
			res, got := send(t, tc.method, gateway+"/api/v1/auth/x?"+tc.query, http.NoBody)
			want := ""
			if tc.method == "GET" && tc.status == 200 {
				want = "hello"
			}
			if res.StatusCode != tc.status || got != want || res.Header.Get("Content-Length") != tc.length || res.Header.Get("Etag") != `"1"` {
				t.Errorf("%s ?%s = %d %q %v", tc.method, tc.query, res.StatusCode, got, res.Header)
			}
		}
	}
	from := map[string]bool{}
	for range 20 {
		res, _ := send(t, "GET", gateway+"/api/v1/auth/x", http.NoBody)
		from[res.Header.Get("X-From")] = true
	}
	if len(from) > 3 { // Probes use connections, too.
		t.Errorf("%d connections for one request at a time: %v", len(from), from)
	}
}
