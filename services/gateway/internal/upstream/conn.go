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
	maxHeaderBytes = 64 << 10         // of a response
	sendTime       = 30 * time.Second // for a request's body, beyond the client's own time for it
)

var (
	errHeaderTooLarge = errors.New("response header too large")
	errSwitched       = errors.New("unexpected protocol switch")
	errClosedIdle     = errors.New("idle connection closed")
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

// conn is a connection for one request at a time. net/http writes the request and parses
// the response; what conn saves are the Transport's two goroutines per connection and the
// hand-over between them.
type conn struct {
	net.Conn

	r        *bufio.Reader
	w        *bufio.Writer
	readable int64     // bytes that may still be read, to bound the header
	sent     int64     // bytes written of the current request
	kept     bool      // from an earlier request
	until    time.Time // the deadline, if extendDeadline has set it
	since    time.Time // idle since then
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
func (c *conn) abort() { _ = c.SetDeadline(past) }

// checkIdle returns an error if the service has closed the idle connection, or sent something
// unasked.
func (c *conn) checkIdle() error {
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

// exchange sends req and reads the header of the response. When the response's body has
// been read or closed, or exchange fails, the connection is either kept or closed.
func (c *conn) exchange(req *http.Request, o exchangeOptions) (*http.Response, error) {
	ctx := req.Context()
	c.sent = 0
	if err := c.extendDeadline(o.timeout); err != nil {
		_ = c.Close()
		return nil, notSentError{err}
	}
	if c.kept && !repeatable(req) {
		if err := c.checkIdle(); err != nil {
			_ = c.Close()
			return nil, notSentError{err}
		}
	}
	x := &exchange{c: c, stop: context.AfterFunc(ctx, c.abort), o: o}
	res, err := x.run(req)
	if err == nil {
		return res, nil
	}
	x.abandon()
	if ctx.Err() != nil {
		err = errors.Join(ctx.Err(), err)
	}
	return nil, err
}

type exchangeOptions struct {
	stall         time.Duration // between two reads of the response's body
	timeout       time.Duration // for the response to begin, once the request is sent
	keep          func(c *conn) // takes the connection for another request
	edit          Edit
	informational Informational
}

// exchange is a request in flight.
type exchange struct {
	c        *conn
	stop     func() bool
	o        exchangeOptions
	sending  *sending // nil if the request has no body
	reusable bool     // Whether the connection can take another request after the response.
}

// finish ends an exchange whose response was read completely, and keeps the connection if
// it can take another request. It cannot if the request is still being sent, because the
// service answered early, or if the service sent more than the response.
func (x *exchange) finish() {
	reusable := x.reusable && x.sending.done() && x.c.r.Buffered() == 0
	// If the context has ended, its function may be about to abort the connection.
	if x.stop() && reusable {
		x.o.keep(x.c)
		return
	}
	_ = x.c.Close()
}

// abandon ends an exchange whose response was not read completely.
func (x *exchange) abandon() {
	x.stop()
	_ = x.c.Close()
}

func (x *exchange) run(req *http.Request) (*http.Response, error) {
	c := x.c
	var fault error
	if !hasBody(req) || req.GetBody != nil {
		fault = writeRequest(c.w, req, x.o.edit)
		if fault != nil && c.sent == 0 {
			return nil, notSentError{fault}
		}
		// A service that responds early may not read on; its response is still there.
	} else {
		x.sending = c.sendBody(req, x.o.timeout)
	}
	res, err := c.receive(req, x.o.informational)
	if err != nil {
		return nil, errors.Join(x.sending.fault(), fault, err)
	}
	x.reusable = fault == nil && !res.Close && !req.Close
	if res.Body == http.NoBody || req.Method == http.MethodHead {
		x.finish()
		return res, nil
	}
	res.Body = &responseBody{ReadCloser: res.Body, x: x}
	return res, nil
}

// receive reads responses up to the final one.
func (c *conn) receive(req *http.Request, informational Informational) (*http.Response, error) {
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
		switch {
		case err != nil:
			return nil, fmt.Errorf("read response: %w", err)
		case res.StatusCode == http.StatusSwitchingProtocols:
			return nil, errSwitched
		case res.StatusCode >= http.StatusOK:
			c.readable = math.MaxInt64
			return res, nil
		}
		informational(res.StatusCode, res.Header)
	}
}

// sending is a request whose body is streamed from a client. A goroutine of its own writes
// it, because the response can come before its end. The goroutine ends with the body,
// which the server's read timeout bounds, or with the connection.
type sending struct {
	finished atomic.Bool
	read     atomic.Pointer[error] // why the body could not be read
}

func (c *conn) sendBody(req *http.Request, timeout time.Duration) *sending {
	s := &sending{}
	out := *req // The caller may reuse req as soon as it has the response.
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

// fault returns the error of reading the client's body, if there was one.
func (s *sending) fault() error {
	if s == nil {
		return nil
	}
	if err := s.read.Load(); err != nil {
		return *err
	}
	return nil
}

// requestBody remembers its read error: net/http does not distinguish it from a failure to
// write.
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

// responseBody ends the exchange when it has been read or closed.
type responseBody struct {
	io.ReadCloser

	x     *exchange
	ended bool
}

func (b *responseBody) Read(p []byte) (int, error) {
	if b.ended {
		return 0, io.EOF
	}
	if b.x.c.r.Buffered() == 0 {
		b.x.c.until = time.Time{}
		_ = b.x.c.SetReadDeadline(time.Now().Add(b.x.o.stall)) // If this fails, so will the read.
	}
	n, err := b.ReadCloser.Read(p)
	switch {
	case errors.Is(err, io.EOF):
		b.end(b.x.finish)
	case err != nil:
		b.end(b.x.abandon)
	}
	return n, err
}

// Close implements io.Closer. It does not read the rest of the body: a new connection
// costs less than a body of unknown length.
func (b *responseBody) Close() error {
	b.end(b.x.abandon)
	return nil
}

func (b *responseBody) end(end func()) {
	if !b.ended {
		b.ended = true
		end()
	}
}
