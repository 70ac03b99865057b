package web_test

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/headgate/headgate/pkg/testkit"
	"github.com/headgate/headgate/pkg/web"
)

// pipes is a listener with connections inside the process, so that a test can control time.
type pipes struct {
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

func newPipes() *pipes { return &pipes{conns: make(chan net.Conn), done: make(chan struct{})} }

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.done:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error {
	p.once.Do(func() { close(p.done) })
	return nil
}

func (p *pipes) Addr() net.Addr { return &net.TCPAddr{} }

func (p *pipes) dial() (net.Conn, error) {
	client, server := net.Pipe()
	select {
	case p.conns <- server:
		return client, nil
	case <-p.done:
		return nil, net.ErrClosed
	}
}

// serve runs a server in a synctest bubble; stop waits until it has ended.
func serve(t *testing.T, drain time.Duration, handler http.HandlerFunc) (listener *pipes, stop func() error) {
	t.Helper()
	listener = newPipes()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		done <- web.NewServer(web.Listener{DrainDelay: drain}, handler, testkit.Log(t)).Serve(ctx, listener)
	}()
	return listener, func() error {
		cancel()
		return <-done
	}
}

// TestSEC45SlowClients: a client that sends or reads one byte at a time, or nothing at all,
// loses its connection.
func TestSEC45SlowClients(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		first, each string
		within      time.Duration
	}{
		"a header byte by byte": {"GET / HTTP/1.1\r\nHost: x\r\nX-A: ", "x", 6 * time.Second},
		"header by header":      {"GET / HTTP/1.1\r\nHost: x\r\n", "X-A: x\r\n", 6 * time.Second},
		"a body byte by byte":   {"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n", "x", 21 * time.Second},
		"chunk by chunk":        {"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n", "1\r\nx\r\n", 21 * time.Second},
		"nothing":               {"", "", 6 * time.Second},
		"nothing more":          {"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "", 61 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				listener, stop := serve(t, 0, func(w http.ResponseWriter, r *http.Request) {
					if _, err := io.Copy(io.Discard, r.Body); err != nil {
						w.WriteHeader(http.StatusBadRequest)
					}
				})
				c, err := listener.dial()
				if err != nil {
					t.Fatal(err)
				}
				began := time.Now()
				dripped := make(chan struct{})
				go func() {
					defer close(dripped)
					_, err := io.WriteString(c, tc.first)
					for err == nil && tc.each != "" {
						time.Sleep(time.Second)
						_, err = io.WriteString(c, tc.each)
					}
				}()
				if _, err := io.Copy(io.Discard, c); err != nil {
					t.Errorf("read: %v", err)
				}
				if took := time.Since(began); took > tc.within {
					t.Errorf("the connection lasted %s, want at most %s", took, tc.within)
				}
				c.Close()
				<-dripped
				if err := stop(); err != nil {
					t.Error(err)
				}
			})
		})
	}
}

func TestSEC45ClientsThatDoNotRead(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		failed := make(chan error, 1)
		listener, stop := serve(t, 0, func(w http.ResponseWriter, _ *http.Request) {
			var err error
			for err == nil {
				_, err = w.Write(make([]byte, 64<<10))
			}
			failed <- err
		})
		c, err := listener.dial()
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		began := time.Now()
		if _, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		if err := <-failed; err == nil || time.Since(began) > 31*time.Second {
			t.Errorf("the handler was released after %s: %v", time.Since(began), err)
		}
		if err := stop(); err != nil {
			t.Error(err)
		}
	})
}

// TestDrain: a stopping server accepts requests for a while, closes connections after the
// response, and finishes the requests in flight.
func TestDrain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		listener, stop := serve(t, 3*time.Second, func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/slow" {
				time.Sleep(10 * time.Second)
			}
		})
		ask := func(path string) (*http.Response, error) {
			c, err := listener.dial()
			if err != nil {
				return nil, err
			}
			t.Cleanup(func() { c.Close() })
			if _, err := io.WriteString(c, "GET "+path+" HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
				return nil, err
			}
			return http.ReadResponse(bufio.NewReader(c), nil)
		}
		if res, err := ask("/"); err != nil || res.Close {
			t.Fatalf("before: %+v, %v", res, err)
		}
		slow := make(chan error, 1)
		go func() {
			_, err := ask("/slow")
			slow <- err
		}()
		synctest.Wait()
		stopped := make(chan error, 1)
		go func() { stopped <- stop() }()
		time.Sleep(2 * time.Second)
		if res, err := ask("/"); err != nil || !res.Close {
			t.Errorf("while it drains: %+v, %v", res, err)
		}
		time.Sleep(2 * time.Second)
		if _, err := ask("/"); !errors.Is(err, net.ErrClosed) {
			t.Errorf("after it: %v", err)
		}
		if err := <-slow; err != nil {
			t.Errorf("the request under way: %v", err)
		}
		if err := <-stopped; err != nil {
			t.Error(err)
		}
	})
}
