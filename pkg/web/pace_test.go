package web_test

import (
	"errors"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/headgate/headgate/pkg/testkit"
)

// TestSEC161LongResponses: a response may take longer than the timeout of the server. A client
// that stops, or takes less than 16 KiB a second on average, is cut off.
func TestSEC161LongResponses(t *testing.T) {
	t.Parallel()
	const size = 1 << 20
	for name, tc := range map[string]struct {
		piece, pieces int // what the client takes
		every         time.Duration
		complete      bool
		within        time.Duration
	}{
		"slow":     {piece: 64 << 10, pieces: size>>16 + 1, every: 3900 * time.Millisecond, complete: true, within: 2 * time.Minute},
		"too slow": {piece: 64 << 10, pieces: size>>16 + 1, every: 10 * time.Second, within: time.Minute},
		"stops":    {piece: 64 << 10, pieces: 3, every: time.Second, within: 43 * time.Second},
		"trickles": {piece: 1 << 10, pieces: size >> 10, every: time.Second, within: 31 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				written := make(chan error, 1)
				listener, stop := serve(t, 0, func(w http.ResponseWriter, _ *http.Request) {
					w.Header().Set("Content-Length", strconv.Itoa(size))
					_, err := io.WriteString(w, strings.Repeat("x", size))
					written <- err
				})
				c, err := listener.dial()
				if err != nil {
					t.Fatal(err)
				}
				began := time.Now()
				read := make(chan struct{})
				go func() {
					defer close(read)
					_, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
					for range tc.pieces {
						if err != nil {
							return
						}
						time.Sleep(tc.every)
						_, err = io.CopyN(io.Discard, c, int64(tc.piece))
					}
				}()
				err = <-written
				if took := time.Since(began); (err == nil) != tc.complete || took > tc.within {
					t.Errorf("ended after %s: %v", took, err)
				}
				c.Close()
				<-read
				if err := stop(); err != nil {
					t.Error(err)
				}
			})
		})
	}
}

// TestHijackedConnection: a handler that switches protocols can limit what the kernel buffers, and
// its deadlines are exact: what is sent extends none.
func TestHijackedConnection(t *testing.T) {
	t.Parallel()
	ended := make(chan error, 1)
	c := listen(t, func(w http.ResponseWriter, _ *http.Request) {
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			ended <- err
			return
		}
		defer conn.Close()
		if buffered, ok := conn.(interface{ SetWriteBuffer(n int) error }); !ok || buffered.SetWriteBuffer(64<<10) != nil {
			t.Error("the buffer of the connection cannot be set")
		}
		err = conn.SetWriteDeadline(time.Now().Add(time.Second))
		for err == nil {
			_, err = conn.Write(make([]byte, 1<<20))
		}
		ended <- err
	})
	if _, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	if _, err := io.CopyN(io.Discard, c, 4<<20); err != nil { // as much as would extend it by minutes
		t.Fatal(err)
	}
	select {
	case err := <-ended:
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("ended with %v", err)
		}
	case <-time.After(testkit.Timeout):
		t.Error("a write goes on after its deadline")
	}
}
