package web_test

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// TestSEC161LongTransfers: a request or a response may take longer than a timeout of the server.
// A client that stops, or is slower than 64 KiB in that time, is cut off.
func TestSEC161LongTransfers(t *testing.T) {
	t.Parallel()
	const size, large, small = 1 << 20, 64 << 10, 1 << 10
	body := strings.Repeat("x", size)
	for name, tc := range map[string]struct {
		upload, complete bool
		piece            int // what the client sends or takes
		pieces           int
		every            time.Duration
		within           time.Duration
	}{
		"slow download":          {piece: large, pieces: size/large + 1, every: 25 * time.Second, complete: true, within: 10 * time.Minute},
		"download that stops":    {piece: large, pieces: 3, every: 10 * time.Second, within: 61 * time.Second},
		"download that trickles": {piece: small, pieces: size / small, every: time.Second, within: 31 * time.Second},
		"slow upload":            {upload: true, piece: large, pieces: size / large, every: 15 * time.Second, complete: true, within: 10 * time.Minute},
		"upload that stops":      {upload: true, piece: large, pieces: 3, every: 10 * time.Second, within: 51 * time.Second},
		"upload that trickles":   {upload: true, piece: small, pieces: size / small, every: time.Second, within: 21 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				ended := make(chan error, 1)
				listener, stop := serve(t, 0, func(w http.ResponseWriter, r *http.Request) {
					_, err := io.Copy(io.Discard, r.Body)
					if err == nil && !tc.upload {
						w.Header().Set("Content-Length", strconv.Itoa(size))
						_, err = io.WriteString(w, body)
					}
					ended <- err
				})
				c, err := listener.dial()
				if err != nil {
					t.Fatal(err)
				}
				began := time.Now()
				responded := make(chan error, 1)
				go func() {
					request := "GET / HTTP/1.1\r\nHost: x\r\n\r\n"
					if tc.upload {
						request = fmt.Sprintf("PUT / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n", size)
					}
					_, err := io.WriteString(c, request)
					for range tc.pieces {
						if err != nil {
							break
						}
						time.Sleep(tc.every)
						if tc.upload {
							_, err = io.WriteString(c, body[:tc.piece])
						} else {
							_, err = io.CopyN(io.Discard, c, int64(tc.piece))
						}
					}
					if tc.upload && tc.complete && err == nil {
						_, err = bufio.NewReader(c).ReadString('\n')
					}
					responded <- err
				}()
				err = <-ended
				if took := time.Since(began); (err == nil) != tc.complete || took > tc.within {
					t.Errorf("ended after %s: %v", took, err)
				}
				if !tc.upload {
					c.Close()
				}
				if err := <-responded; tc.complete && tc.upload && err != nil {
					t.Errorf("response: %v", err)
				}
				c.Close()
				if err := stop(); err != nil {
					t.Error(err)
				}
			})
		})
	}
}
