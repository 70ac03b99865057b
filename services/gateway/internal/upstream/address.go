package upstream

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sony/gobreaker/v2"
)

const (
	dialTimeout = 2 * time.Second
	keepAlive   = 15 * time.Second
	// keepIdle is how long an idle connection is kept: for less time than the service keeps
	// it, so that the service seldom closes it first.
	keepIdle = 45 * time.Second
	maxIdle  = 256
	// maxFailures in a row open the circuit breaker of an address, for openTimeout.
	maxFailures = 5
	openTimeout = time.Second
)

// address is one place where a service listens.
type address struct {
	url          *url.URL
	hostport     string
	timeout      time.Duration
	stall        time.Duration
	standard     *http.Transport // for TLS, for upgrades, and where the configuration says so
	standardOnly bool            // Use standard for every request.
	breaker      *gobreaker.CircuitBreaker[*http.Response]
	inFlight     atomic.Int64
	state        atomic.Int32 // result of the last probe

	mu   sync.Mutex
	idle []*conn // longest idle first
}

func newAddress(u *url.URL, o Options, changed func(a *address, to gobreaker.State)) *address {
	a := &address{url: u, hostport: u.Host, timeout: o.Timeout, stall: o.Stall, standardOnly: o.Standard || u.Scheme != "http"}
	if u.Port() == "" {
		a.hostport = net.JoinHostPort(u.Hostname(), "80")
	}
	a.standard = &http.Transport{
		DialContext:            (&net.Dialer{Timeout: dialTimeout, KeepAlive: keepAlive}).DialContext,
		MaxIdleConnsPerHost:    maxIdle,
		IdleConnTimeout:        keepIdle,
		ResponseHeaderTimeout:  o.Timeout,
		MaxResponseHeaderBytes: maxHeaderBytes,
		DisableCompression:     true,
	}
	a.breaker = gobreaker.NewCircuitBreaker[*http.Response](gobreaker.Settings{ //nolint:bodyclose // There is no response yet.
		Name: u.Host, Timeout: openTimeout,
		ReadyToTrip:   func(c gobreaker.Counts) bool { return c.ConsecutiveFailures >= maxFailures },
		IsExcluded:    func(err error) bool { return errors.Is(err, context.Canceled) },
		OnStateChange: func(_ string, _, to gobreaker.State) { changed(a, to) },
	})
	return a
}

// better reports whether a should get the next request rather than b.
func (a *address) better(b *address) bool {
	if x, y := a.usable(), b.usable(); x != y {
		return x
	}
	return a.inFlight.Load() < b.inFlight.Load()
}

func (a *address) usable() bool {
	return a.state.Load() != down && a.breaker.State() != gobreaker.StateOpen
}

// roundTrip sends req over an idle connection, if there is one that is still alive.
func (a *address) roundTrip(req *http.Request, edit Edit, informational Informational) (*http.Response, error) {
	if a.standardOnly || req.Header.Get("Upgrade") != "" && (edit.Omit == nil || !edit.Omit("Upgrade")) {
		return a.standard.RoundTrip(informational.trace(req))
	}
	o := exchangeOptions{timeout: a.timeout, stall: a.stall, keep: a.keep, edit: edit, informational: informational}
	c := a.takeIdle()
	if c == nil {
		return a.onNew(req, o)
	}
	res, err := c.exchange(req, o)
	if err == nil || req.Context().Err() != nil || !retryable(req, err) {
		return res, err
	}
	if req.GetBody != nil {
		body, fault := req.GetBody()
		if fault != nil {
			return nil, errors.Join(err, fault)
		}
		req.Body = body
	}
	return a.onNew(req, o)
}

func (a *address) onNew(req *http.Request, o exchangeOptions) (*http.Response, error) {
	dialer := net.Dialer{Timeout: dialTimeout, KeepAlive: keepAlive}
	c, err := dialer.DialContext(req.Context(), "tcp", a.hostport)
	if err != nil {
		return nil, notSentError{fmt.Errorf("connect: %w", err)}
	}
	return newConn(c).exchange(req, o)
}

// retryable reports whether req may be sent again after it failed on a kept connection:
// it was not sent at all, or its method is safe (RFC 9110, 9.2.1).
func retryable(req *http.Request, err error) bool {
	if _, ok := errors.AsType[notSentError](err); ok {
		return true
	}
	_, ok := errors.AsType[noResponseError](err)
	return ok && !isTimeout(err) && repeatable(req)
}

// repeatable reports whether req may reach the service twice.
func repeatable(req *http.Request) bool {
	return (req.Method == http.MethodGet || req.Method == http.MethodHead) && !hasBody(req)
}

func isTimeout(err error) bool {
	timeout, ok := errors.AsType[net.Error](err)
	return ok && timeout.Timeout()
}

// takeIdle returns the connection that was used last, or nil if none is idle.
func (a *address) takeIdle() *conn {
	a.mu.Lock()
	defer a.mu.Unlock()
	n := len(a.idle)
	if n == 0 {
		return nil
	}
	c := a.idle[n-1]
	a.idle[n-1] = nil
	a.idle = a.idle[:n-1]
	return c
}

// keep makes c available to the next request, or closes it if enough are idle.
func (a *address) keep(c *conn) {
	c.kept, c.since = true, time.Now()
	a.mu.Lock()
	full := len(a.idle) >= maxIdle
	if !full {
		a.idle = append(a.idle, c)
	}
	a.mu.Unlock()
	if full {
		_ = c.Close()
	}
}

// closeIdle closes the connections that have been idle since before then.
func (a *address) closeIdle(then time.Time) {
	a.mu.Lock()
	n := 0
	for n < len(a.idle) && a.idle[n].since.Before(then) {
		n++
	}
	old := append([]*conn(nil), a.idle[:n]...)
	a.idle = append(a.idle[:0], a.idle[n:]...)
	a.mu.Unlock()
	for _, c := range old {
		_ = c.Close()
	}
}
