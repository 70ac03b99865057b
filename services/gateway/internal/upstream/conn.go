package upstream

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"sync/atomic"
	"syscall"
	"time"
)

const (
	maxHeaderBytes = 64 << 10         // of an answer
	sendTime       = 30 * time.Second // for a request's body, beyond the client's own time for it
)

var (
	errHeaderTooLarge = errors.New("the answer's header is too large")
	errSwitched       = errors.New("the service switched protocols unasked")
	errClosedIdle     = errors.New("the idle connection was closed")
)

// longAgo as a deadline ends what waits on a connection.
var longAgo = time.Unix(1, 0)

// notSentError says that not a byte of the request reached the service.
type notSentError struct{ error }

func (e notSentError) Unwrap() error { return e.error }

// noAnswerError says that a connection that was kept from an earlier request
// ended before a byte of the answer: most likely the service closed it while
// the request was on its way, and it is unknown whether it was read.
type noAnswerError struct{ error }

func (e noAnswerError) Unwrap() error { return e.error }

// conn is a connection for one request at a time. The request and the answer are
// written and parsed by net/http; what is left out is the Transport's two
// goroutines for each connection, and the hand-over between them.
type conn struct {
	net.Conn

	r        *bufio.Reader
	w        *bufio.Writer
	readable int64     // bytes that may still be read: of a header not without end
	sent     int64     // bytes of the request under way that were written
	kept     bool      // from an earlier request
	until    time.Time // the deadline, if allow has set it
	since    time.Time
}

func newConn(c net.Conn) *conn {
	nc := &conn{Conn: c, readable: math.MaxInt64}
	nc.r, nc.w = bufio.NewReader(nc), bufio.NewWriter(nc)
	return nc
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

// allow lets the next exchange take timeout, or up to an eighth longer: moving the
// deadline for each request costs more than that is worth.
func (c *conn) allow(timeout time.Duration) error {
	now := time.Now()
	if left := c.until.Sub(now); left >= timeout && left <= timeout+timeout/8 {
		return nil
	}
	c.until = now.Add(timeout + timeout/8)
	return c.SetDeadline(c.until)
}

// abort ends what waits on the connection, which is of no use afterwards.
func (c *conn) abort() { _ = c.SetDeadline(longAgo) }

// check returns an error if the service has closed the idle connection, or sent
// what nobody asked for.
func (c *conn) check() error {
	raw, ok := c.Conn.(syscall.Conn)
	if !ok {
		return nil
	}
	rc, err := raw.SyscallConn()
	if err != nil {
		return err
	}
	fault := errClosedIdle
	err = rc.Read(func(fd uintptr) bool {
		var one [1]byte
		_, _, err := syscall.Recvfrom(int(fd), one[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
		if errors.Is(err, syscall.EAGAIN) {
			fault = nil
		}
		return true
	})
	return errors.Join(err, fault)
}

// exchange sends req and reads the header of the answer. When the answer's body has
// been read or closed, or exchange fails, release is called once.
func (c *conn) exchange(req *http.Request, o exchangeOptions) (*http.Response, error) {
	ctx := req.Context()
	c.sent = 0
	if err := c.allow(o.timeout); err != nil {
		o.release(c, false)
		return nil, notSentError{err}
	}
	if c.kept && !repeatable(req) {
		if err := c.check(); err != nil {
			o.release(c, false)
			return nil, notSentError{err}
		}
	}
	x := &exchange{c: c, stop: context.AfterFunc(ctx, c.abort), o: o}
	res, err := x.run(req)
	if err == nil {
		return res, nil
	}
	x.end(false)
	if ctx.Err() != nil {
		err = errors.Join(ctx.Err(), err)
	}
	return nil, err
}

type exchangeOptions struct {
	stall         time.Duration             // between two pieces of the answer's body
	timeout       time.Duration             // for the answer to begin, once the request is sent
	release       func(c *conn, again bool) // Is told whether the connection may take another request.
	edit          Edit
	informational Informational
}

// exchange is a request under way.
type exchange struct {
	c       *conn
	stop    func() bool
	o       exchangeOptions
	sending *sending // nil if the request has no body
	again   bool     // May the connection take another request when the answer has been read?
}

func (x *exchange) end(complete bool) {
	// Whatever is read from a body has an end; a request that is still being sent
	// when its answer is complete was answered early.
	again := complete && x.again && x.sending.done() && x.c.r.Buffered() == 0
	// Once the context has ended, its function may still be on its way.
	again = x.stop() && again
	x.o.release(x.c, again)
}

func (x *exchange) run(req *http.Request) (*http.Response, error) {
	c := x.c
	var fault error
	if !hasBody(req) || req.GetBody != nil {
		fault = writeRequest(c.w, req, x.o.edit)
		if fault != nil && c.sent == 0 {
			return nil, notSentError{fault}
		}
		// Who answers early may not read on; the answer is still there.
	} else {
		x.sending = c.sendBody(req, x.o.timeout)
	}
	res, err := c.receive(req, x.o.informational)
	if err != nil {
		return nil, errors.Join(x.sending.fault(), fault, err)
	}
	x.again = fault == nil && !res.Close && !req.Close
	if res.Body == http.NoBody || req.Method == http.MethodHead {
		x.end(true)
		return res, nil
	}
	res.Body = &answerBody{ReadCloser: res.Body, x: x}
	return res, nil
}

// receive reads answers up to the final one.
func (c *conn) receive(req *http.Request, informational Informational) (*http.Response, error) {
	c.readable = maxHeaderBytes
	if _, err := c.r.Peek(1); err != nil {
		err = fmt.Errorf("await answer: %w", err)
		if c.kept {
			return nil, noAnswerError{err}
		}
		return nil, err
	}
	for {
		res, err := http.ReadResponse(c.r, req)
		switch {
		case err != nil:
			return nil, fmt.Errorf("read answer: %w", err)
		case res.StatusCode == http.StatusSwitchingProtocols:
			return nil, errSwitched
		case res.StatusCode >= http.StatusOK:
			c.readable = math.MaxInt64
			return res, nil
		}
		informational(res.StatusCode, res.Header)
	}
}

// sending is a request on its way whose body comes from a client as it pleases. It
// is written by a goroutine of its own, since the answer can come before its end. The goroutine ends
// with the body or the connection; the server behind the body bounds the one, and
// release closes the other.
type sending struct {
	finished atomic.Bool
	read     atomic.Pointer[error] // why the body could not be read
}

func (c *conn) sendBody(req *http.Request, timeout time.Duration) *sending {
	s := &sending{}
	out := *req // The caller may go on with req once the answer is there.
	out.Body = &requestBody{ReadCloser: req.Body, sending: s}
	c.until = time.Time{}
	_ = c.SetDeadline(time.Now().Add(sendTime + timeout)) // A connection that takes no deadline fails at once.
	go func() {
		err := writeRequest(c.w, &out, Edit{})
		switch {
		case s.read.Load() != nil:
			c.abort()
		case err == nil:
			_ = c.SetReadDeadline(time.Now().Add(timeout))
			s.finished.Store(true)
		}
	}()
	return s
}

func (s *sending) done() bool { return s == nil || s.finished.Load() }

// fault returns why the client's body could not be read, if that is so.
func (s *sending) fault() error {
	if s == nil {
		return nil
	}
	if err := s.read.Load(); err != nil {
		return *err
	}
	return nil
}

// requestBody remembers why it could not be read: net/http does not tell it from a
// failure to write.
type requestBody struct {
	io.ReadCloser

	sending *sending
}

func (b *requestBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		b.sending.read.CompareAndSwap(nil, &err)
	}
	return n, err
}

// answerBody gives the connection back when it has been read, or closed.
type answerBody struct {
	io.ReadCloser

	x     *exchange
	ended bool
}

func (b *answerBody) Read(p []byte) (int, error) {
	if b.ended {
		return 0, io.EOF
	}
	if b.x.c.r.Buffered() == 0 {
		b.x.c.until = time.Time{}
		_ = b.x.c.SetReadDeadline(time.Now().Add(b.x.o.stall)) // Reading tells what is amiss.
	}
	n, err := b.ReadCloser.Read(p)
	if err != nil {
		b.end(errors.Is(err, io.EOF))
	}
	return n, err
}

// Close implements io.Closer. What is left of the body is not read: another
// connection costs less than one does not know how much.
func (b *answerBody) Close() error {
	b.end(false)
	return nil
}

func (b *answerBody) end(complete bool) {
	if !b.ended {
		b.ended = true
		b.x.end(complete)
	}
}
