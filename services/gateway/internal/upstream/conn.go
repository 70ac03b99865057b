package upstream

import (
	"bufio"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/net/http/httpguts"
)

const maxHeaderBytes = 64 << 10 // of a response, with all responses of status 1xx before it

var (
	errHeaderTooLarge = errors.New("response header too large")
	errSwitched       = errors.New("unexpected protocol switch")
)

// past as a deadline ends all reads and writes of a connection.
var past = time.Unix(1, 0)

// notSentError says that no byte of the request reached the service.
type notSentError struct{ error }

func (e notSentError) Unwrap() error { return e.error }

// noResponseError says that a kept connection ended before the first byte of the response.
// Most likely the service closed it while the request was on its way; whether the service
// has read the request is unknown.
type noResponseError struct{ error }

func (e noResponseError) Unwrap() error { return e.error }

// conn is a connection for one request at a time. net/http writes requests with a body and
// parses the response; what conn saves are the Transport's two goroutines per connection
// and the hand-over between them.
type conn struct {
	net.Conn

	socket   net.Conn // below TLS
	closed   func()
	r        *bufio.Reader
	w        *bufio.Writer
	readable int64     // bytes that may still be read, to bound the header
	sent     int64     // bytes written of the current request
	kept     bool      // from an earlier request
	until    time.Time // the deadline, if extendDeadline has set it
	since    time.Time // idle since then
	aborted  atomic.Bool
}

// newConn returns c, which may be TLS on top of socket. closed is called once.
func newConn(c, socket net.Conn, closed func()) *conn {
	nc := &conn{Conn: c, socket: socket, readable: math.MaxInt64, closed: sync.OnceFunc(closed)}
	nc.r, nc.w = bufio.NewReader(nc), bufio.NewWriter(nc)
	return nc
}

// Close implements io.Closer. It does not say goodbye in TLS, which could block.
func (c *conn) Close() error {
	c.closed()
	return c.socket.Close()
}

// Read implements io.Reader for the buffer.
func (c *conn) Read(p []byte) (int, error) {
	if c.readable <= 0 {
		return 0, errHeaderTooLarge
	}
	n, err := c.Conn.Read(p)
	c.readable -= int64(n)
	return n, err
}

// Write implements io.Writer for the buffer.
func (c *conn) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	c.sent += int64(n)
	return n, err
}

// extendDeadline sets the deadline of the next exchange to timeout, or up to an eighth later:
// moving it for every request would cost more than the precision is worth.
func (c *conn) extendDeadline(timeout time.Duration) error {
	now := time.Now()
	if left := c.until.Sub(now); left >= timeout && left <= timeout+timeout/8 {
		return nil
	}
	c.until = now.Add(timeout + timeout/8)
	return c.SetDeadline(c.until)
}

// abort ends all reads and writes of the connection, which cannot be used afterwards.
func (c *conn) abort() {
	c.aborted.Store(true)
	_ = c.SetDeadline(past)
}

// readUntil moves the deadline of reads, unless the connection was aborted. If it fails, so
// will the read.
func (c *conn) readUntil(then time.Time) {
	_ = c.SetReadDeadline(then)
	if c.aborted.Load() {
		_ = c.SetDeadline(past)
	}
}

// quiet reports whether the idle connection is open and has nothing to read. Whatever a
// service has sent unasked would be taken for the answer to the next request.
func (c *conn) quiet() bool {
	socket, ok := c.socket.(syscall.Conn)
	if !ok || c.r.Buffered() > 0 {
		return false
	}
	raw, err := socket.SyscallConn()
	if err != nil {
		return false
	}
	empty := false
	err = raw.Control(func(fd uintptr) {
		var one [1]byte
		_, _, err := syscall.Recvfrom(int(fd), one[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
		empty = errors.Is(err, syscall.EAGAIN)
	})
	return err == nil && empty && c.tlsQuiet()
}

// tlsQuiet reports whether TLS, if it is used, holds nothing that it has read and not yet
// delivered.
func (c *conn) tlsQuiet() bool {
	secure, ok := c.Conn.(*tls.Conn)
	if !ok {
		return true
	}
	c.until = time.Time{}
	if secure.SetReadDeadline(past) != nil { // The read must not wait.
		return false
	}
	var one [1]byte
	n, err := secure.Read(one[:])
	return n == 0 && isTimeout(err)
}

// receive reads responses up to the final one. Those of status 1xx are dropped: the gateway
// asks for none, and they would carry headers past it. asked says whether the request asked
// for another protocol.
func (c *conn) receive(req *http.Request, asked bool) (*http.Response, error) {
	c.readable = maxHeaderBytes
	if _, err := c.r.Peek(1); err != nil {
		err = fmt.Errorf("await response: %w", err)
		if c.kept {
			return nil, noResponseError{err}
		}
		return nil, err
	}
	for {
		res, err := http.ReadResponse(c.r, req)
		if err == nil {
			err = checkHead(res)
		}
		switch {
		case err != nil:
			return nil, fmt.Errorf("read response: %w", err)
		case res.StatusCode == http.StatusSwitchingProtocols && !asked:
			return nil, errSwitched
		case res.StatusCode == http.StatusSwitchingProtocols, res.StatusCode >= http.StatusOK:
			c.readable = math.MaxInt64
			return res, nil
		}
	}
}

// checkHead rejects what net/http reads although HTTP does not define it, so that another
// parser may have read something else.
func checkHead(res *http.Response) error {
	if res.StatusCode < 100 || res.StatusCode > 599 {
		return fmt.Errorf("invalid status %d", res.StatusCode)
	}
	if res.ProtoMajor != 1 {
		return fmt.Errorf("unsupported protocol %s", res.Proto)
	}
	for name := range res.Header {
		if !httpguts.ValidHeaderFieldName(name) {
			return fmt.Errorf("invalid header %q", name)
		}
	}
	return nil
}

// requestIDHeader ties a response to its request: services return the id that they got.
const requestIDHeader = "X-Request-Id"

// checkAnswers rejects a response that has another request's id. One without an id is accepted:
// it may be from a load balancer.
func checkAnswers(res *http.Response, id string) error {
	isOther := func(other string) bool { return other != id }
	if ids := res.Header[requestIDHeader]; id != "" && slices.ContainsFunc(ids, isOther) {
		return fmt.Errorf("response to another request: %q", ids)
	}
	return nil
}

// exact reports whether the end of the response is certain: it has a length or a final
// chunk. Services are known to send a body where HTTP allows none, so those are not exact.
func exact(res *http.Response, method string) bool {
	switch {
	case res.Close || !res.ProtoAtLeast(1, 1) || method == http.MethodHead:
		return false
	case res.StatusCode == http.StatusNoContent || res.StatusCode == http.StatusNotModified:
		return false
	}
	return res.ContentLength >= 0 || slices.Equal(res.TransferEncoding, []string{"chunked"})
}

// switchedBody is the connection after a switch of protocol.
type switchedBody struct{ x *exchange }

// Read implements io.Reader.
func (b switchedBody) Read(p []byte) (int, error) { return b.x.c.r.Read(p) }

// Write implements io.Writer.
func (b switchedBody) Write(p []byte) (int, error) { return b.x.c.Write(p) }

// Close implements io.Closer.
func (b switchedBody) Close() error {
	b.x.abandon()
	return nil
}

var _ io.ReadWriteCloser = switchedBody{}
