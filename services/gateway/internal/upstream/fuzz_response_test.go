package upstream

import (
	"bufio"
	"bytes"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"
)

// FuzzResponse: whatever a service writes, an exchange fails or returns a response of a
// defined status; the connection is closed or kept, once; and it is kept only if exactly
// one response was read, with an end that is certain.
func FuzzResponse(f *testing.F) {
	for _, seed := range []string{
		"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX: y\r\n\r\n",
		"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 204 No Content\r\n\r\nHTTP/1.1 200 OK\r\n\r\n", "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 0\r\n\r\n",
		"HTTP/1.1 000 Zero\r\n\r\n", "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\nbytes", "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n",
		"HTTP/1.1 200 OK\r\nX-Request-Id: other\r\nContent-Length: 0\r\n\r\n", "HTTP/1.1 200 OK\r\nTransfer-Encoding : chunked\r\nContent-Length: 1\r\n\r\nx",
	} {
		for _, method := range []string{"GET", "HEAD", "POST", "PUT"} {
			f.Add(method, seed)
		}
	}
	f.Fuzz(func(t *testing.T, method, text string) {
		service := &scripted{text: strings.NewReader(text)}
		closed, kept := 0, 0
		c := newConn(service, service, func() { closed++ })
		req := (&http.Request{Method: method, URL: &url.URL{Path: "/"}, Host: "svc", Header: http.Header{requestIDHeader: {"own"}}}).WithContext(t.Context())
		if method == http.MethodPut {
			req.Body, req.ContentLength = io.NopCloser(strings.NewReader("body")), 4
		}
		res, err := c.exchange(req, exchangeOptions{timeout: time.Minute, stall: time.Minute, keep: func(*conn) { kept++ }})
		if err != nil {
			if closed != 1 || kept != 0 {
				t.Fatalf("%v: closed %d times, kept %d times", err, closed, kept)
			}
			return
		}
		body, readErr := io.ReadAll(res.Body)
		res.Body.Close()
		if closed+kept != 1 {
			t.Errorf("closed %d times, kept %d times", closed, kept)
		}
		if res.StatusCode < 200 || res.StatusCode > 599 {
			t.Errorf("status %d", res.StatusCode)
		}
		if id := res.Header[requestIDHeader]; len(id) > 0 && id[0] != "own" {
			t.Errorf("the response to %q", id)
		}
		if kept == 1 {
			wantExact(t, method, text, body, readErr)
		}
	})
}

// wantExact checks that text is one final response with that body, that its end is certain,
// and that nothing follows.
func wantExact(t *testing.T, method, text string, body []byte, readErr error) {
	t.Helper()
	r := bufio.NewReader(strings.NewReader(text))
	for {
		res, err := http.ReadResponse(r, &http.Request{Method: method})
		if err != nil {
			t.Fatalf("kept after %v", err)
		}
		if res.StatusCode < 200 {
			continue
		}
		want, err := io.ReadAll(res.Body)
		if err != nil || readErr != nil || !bytes.Equal(body, want) {
			t.Errorf("the body is %q, %v, want %q, %v", body, readErr, want, err)
		}
		if rest, _ := io.ReadAll(r); len(rest) > 0 {
			t.Errorf("kept with %q unread", rest)
		}
		noBody := method == http.MethodHead || res.StatusCode == http.StatusNoContent || res.StatusCode == http.StatusNotModified
		if noBody || res.Close || res.ContentLength < 0 && len(res.TransferEncoding) == 0 {
			t.Errorf("kept after %s of %d, length %d, %q", method, res.StatusCode, res.ContentLength, res.TransferEncoding)
		}
		return
	}
}

// scripted is a connection to a service that writes text and takes everything.
type scripted struct {
	net.Conn

	text *strings.Reader
}

func (c *scripted) Read(p []byte) (int, error)         { return c.text.Read(p) }
func (c *scripted) Write(p []byte) (int, error)        { return len(p), nil }
func (c *scripted) Close() error                       { return nil }
func (c *scripted) SetDeadline(time.Time) error        { return nil }
func (c *scripted) SetReadDeadline(time.Time) error    { return nil }
func (c *scripted) SetWriteDeadline(t time.Time) error { return nil }
