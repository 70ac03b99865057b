package api_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"
)

const putChunks = "PUT " + avatar + " HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nTransfer-Encoding: chunked\r\n\r\n"

// readAll is a service that reads every body.
func readAll(w http.ResponseWriter, r *http.Request) {
	if _, err := io.Copy(io.Discard, r.Body); err == nil {
		_, _ = io.WriteString(w, "read")
	}
}

// TestInvalidBodiesOpenNoBreaker: a client that sends invalid bodies makes no other client's
// request fail.
func TestInvalidBodiesOpenNoBreaker(t *testing.T) {
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
	c := dial(t, strings.TrimPrefix(gateway, "http://"), 5*time.Second)
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
