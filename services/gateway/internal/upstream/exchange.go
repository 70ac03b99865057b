package upstream

import (
	"context"
	"errors"
	"io"
	"net/http"
	"sync/atomic"
	"time"
)

type exchangeOptions struct {
	stall   time.Duration // between two reads of the response's body, or two writes of the request's
	timeout time.Duration // for the response to begin, once the request is sent
	keep    func(c *conn) // takes the connection for another request
	edit    Edit
}

// exchange is a request in flight.
type exchange struct {
	c        *conn
	stop     func() bool
	o        exchangeOptions
	sending  *sending // nil if the request has no body, or one that can be read again
	reusable bool     // Whether the connection can take another request after the response.
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

func (x *exchange) run(req *http.Request) (*http.Response, error) {
	c := x.c
	var fault error
	if !streams(req) {
		fault = writeRequest(c.w, req, x.o.edit)
		if fault != nil && c.sent == 0 {
			return nil, notSentError{fault}
		}
		// A service that responds early may not read on; its response is still there.
	} else {
		x.sending = c.sendBody(req, x.o)
	}
	res, err := c.receive(req, x.o.edit.value(req.Header, "Upgrade") != "")
	if err == nil {
		err = checkAnswers(res, x.o.edit.value(req.Header, requestIDHeader))
	}
	if err != nil {
		if req.Context().Err() != nil {
			x.sending.awaitFault()
		}
		return nil, errors.Join(x.sending.fault(), fault, x.sending.explain(err))
	}
	if res.StatusCode == http.StatusSwitchingProtocols {
		res.Body = switchedBody{x}
		_ = c.SetWriteDeadline(time.Time{}) // If this fails, so will the writes.
		c.readUntil(time.Time{})
		return res, nil
	}
	x.reusable = fault == nil && !req.Close && exact(res, req.Method)
	if res.Body == http.NoBody {
		x.finish()
		return res, nil
	}
	res.Body = &responseBody{ReadCloser: res.Body, x: x}
	return res, nil
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
		b.x.c.readUntil(time.Now().Add(b.x.o.stall))
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

// sending is a request whose body is streamed from a client. A goroutine of its own writes
// it, because the response can come before its end. The goroutine ends with the body,
// which the server's read timeout bounds, with the connection, or when the service takes
// nothing for as long as a response may pause.
type sending struct {
	ended    chan struct{} // closed when nothing more is sent
	finished atomic.Bool
	waiting  atomic.Pointer[time.Time] // since when the client has sent nothing
	read     atomic.Pointer[BodyError] // why the body could not be read
}

func (c *conn) sendBody(req *http.Request, o exchangeOptions) *sending {
	s := &sending{ended: make(chan struct{})}
	out := *req // The caller may reuse req as soon as it has the response.
	out.Body = &requestBody{ReadCloser: req.Body, sending: s, written: func() {
		_ = c.SetWriteDeadline(time.Now().Add(o.stall)) // A connection that takes no deadline fails at once.
	}}
	c.until = time.Time{}
	c.readUntil(time.Time{})
	go func() {
		defer close(s.ended)
		err := writeRequest(c.w, &out, Edit{})
		switch {
		case s.read.Load() != nil, isTimeout(err):
			c.abort()
		default:
			c.readUntil(time.Now().Add(o.timeout)) // A service that takes no more may still have answered.
			s.finished.Store(err == nil)
		}
	}()
	return s
}

func (s *sending) done() bool { return s == nil || s.finished.Load() }

// awaitFault waits for the fault that has ended the request: net/http cancels a request before
// it returns the error of reading its body.
func (s *sending) awaitFault() {
	if s == nil {
		return
	}
	select {
	case <-s.ended:
	case <-time.After(faultWait): // It was cancelled for another reason.
	}
}

const faultWait = 100 * time.Millisecond

// fault returns a BodyError if the client's body could not be read.
func (s *sending) fault() error {
	if s == nil {
		return nil
	}
	if err := s.read.Load(); err != nil {
		return *err
	}
	return nil
}

// BodyError says that the body of a request could not be read. The client is at fault, not
// the service.
type BodyError struct{ error }

// Unwrap returns the error of the body.
func (e BodyError) Unwrap() error { return e.error }

// errSilentClient says that a connection ended while the client had paused in its body. A load
// balancer, for example, may wait for less time than the gateway.
var errSilentClient = errors.New("connection ended while the client paused")

// silence is how long a pause of the client must be to explain the end of a connection.
const silence = time.Second

// explain returns err, which ended the exchange, with errSilentClient if a pause of the client
// explains it.
func (s *sending) explain(err error) error {
	if s == nil {
		return err
	}
	if since := s.waiting.Load(); since != nil && time.Since(*since) >= silence {
		return errors.Join(errSilentClient, err)
	}
	return err
}

// requestBody remembers its read error: net/http does not distinguish it from a failure to
// write.
type requestBody struct {
	io.ReadCloser

	sending *sending
	written func() // called before each piece is written
}

func (b *requestBody) Read(p []byte) (int, error) {
	now := time.Now()
	b.sending.waiting.Store(&now)
	n, err := b.ReadCloser.Read(p)
	b.sending.waiting.Store(nil)
	if err != nil && !errors.Is(err, io.EOF) {
		b.sending.read.CompareAndSwap(nil, &BodyError{err})
	}
	b.written()
	return n, err
}
