package upstream_test

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/headgate/headgate/services/gateway/internal/upstream"
)

// TestSEC123TLS: a service behind https is used only with a certificate that the gateway
// trusts, and its connections are reused.
func TestSEC123TLS(t *testing.T) {
	t.Parallel()
	connections := map[string]bool{}
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		connections[r.RemoteAddr] = true // One request at a time.
		_, _ = io.Copy(w, r.Body)
	}))
	t.Cleanup(server.Close)
	w := newFixtureTLS(t, server.Client().Transport.(*http.Transport).TLSClientConfig, server.URL)
	for range 5 {
		w.must("POST", "/", strings.Repeat("x", 100_000))
		w.must("GET", "/", "")
	}
	if len(connections) != 1 {
		t.Errorf("%d connections for one request at a time", len(connections))
	}
	for name, roots := range map[string]*tls.Config{"the roots of the system": nil, "no roots": {RootCAs: x509.NewCertPool()}} {
		if res, err := newFixtureTLS(t, roots, server.URL).ask("GET", "/", ""); err == nil {
			res.Body.Close()
			t.Errorf("%s: a certificate that nothing vouches for is accepted", name)
		}
	}
}

// TestSEC121StrayTLSRecords: what a service sends after its answer never reaches the next
// request, even if TLS has already read it.
func TestSEC121StrayTLSRecords(t *testing.T) {
	t.Parallel()
	// httptest has a certificate.
	server := httptest.NewTLSServer(http.NotFoundHandler())
	t.Cleanup(server.Close)
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	var requests atomic.Int64
	go func() {
		for {
			plain, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer plain.Close()
				batched := &batchConn{Conn: plain}
				c := tls.Server(batched, &tls.Config{Certificates: server.TLS.Certificates})
				r := bufio.NewReader(c)
				for {
					if _, err := http.ReadRequest(r); err != nil {
						return
					}
					// Two records in one segment.
					batched.on = true
					answer := func(text string) {
						fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(text), text)
					}
					answer(strconv.FormatInt(requests.Add(1), 10))
					answer("SECRET")
					if batched.flush() != nil {
						return
					}
				}
			}()
		}
	}()
	w := newFixtureTLS(t, server.Client().Transport.(*http.Transport).TLSClientConfig, "https://"+listener.Addr().String())
	for i := range 5 {
		res, err := w.ask("GET", "/", "")
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(res.Body)
		res.Body.Close()
		if err != nil || string(text) != strconv.Itoa(i+1) {
			t.Errorf("request %d got %q, %v", i+1, text, err)
		}
	}
}

// batchConn sends what was written since on was set in one piece.
type batchConn struct {
	net.Conn

	on      bool
	waiting bytes.Buffer
}

func (c *batchConn) Write(p []byte) (int, error) {
	if c.on {
		return c.waiting.Write(p)
	}
	return c.Conn.Write(p)
}

func (c *batchConn) flush() error {
	_, err := c.waiting.WriteTo(c.Conn)
	return err
}

func newFixtureTLS(t *testing.T, config *tls.Config, address string) fixture {
	t.Helper()
	return newFixtureOf(t, upstream.Options{MaxInFlight: 100, TLS: config}, address)
}
