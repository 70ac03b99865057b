package upstream

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/sony/gobreaker/v2"
)

const (
	dialTimeout = 2 * time.Second
	keepAlive   = 15 * time.Second
	// keepIdle is how long an idle connection is kept: for less time than the service keeps
	// it, so that the service seldom closes it first.
	keepIdle = 45 * time.Second
	maxIdle  = 256
)

// address is one place where a service listens.
type address struct {
	url          *url.URL
	hostport     string
	tls          *tls.Config // nil without TLS
	timeout      time.Duration
	stall        time.Duration
	breaker      atomic.Pointer[gobreaker.CircuitBreaker[*http.Response]]
	found        func()                    // called when the address is reachable again
	lost         atomic.Pointer[time.Time] // since when the address is unreachable; nil if it is not
	doubted      chan struct{}             // tells Run to connect
	log          *slog.Logger
	inFlight     atomic.Int64
	shares       shares
	state        atomic.Int32 // result of the last probe
	requests     prometheus.Gauge
	connections  prometheus.Gauge
	reachable    prometheus.Gauge
	breakerGauge prometheus.Gauge

	mu   sync.Mutex
	idle []*conn // longest idle first
}

func newAddress(name string, u *url.URL, o Options, found func()) *address {
	a := &address{
		url: u, hostport: u.Host, timeout: o.Timeout, stall: o.Stall, doubted: make(chan struct{}, 1), found: found,
		log:          o.Log.With("upstream", name, "address", u.Host),
		shares:       shares{perUser: o.MaxPerUser, perNetwork: o.MaxPerNetwork, inFlight: map[Client]int{}},
		requests:     o.Metrics.inFlight.WithLabelValues(name, u.Host),
		connections:  o.Metrics.connections.WithLabelValues(name, u.Host),
		reachable:    o.Metrics.reachable.WithLabelValues(name, u.Host),
		breakerGauge: o.Metrics.breaker.WithLabelValues(name, u.Host),
	}
	port := "80"
	if u.Scheme == "https" {
		port = "443"
		a.tls = &tls.Config{}
		if o.TLS != nil {
			a.tls = o.TLS.Clone()
		}
		if a.tls.ServerName == "" {
			a.tls.ServerName = u.Hostname()
		}
	}
	if u.Port() == "" {
		a.hostport = net.JoinHostPort(u.Hostname(), port)
	}
	a.breakerGauge.Set(0)
	a.reachable.Set(1)
	a.renewBreaker()
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
	return a.state.Load() != down && a.lost.Load() == nil && a.breakerState() != gobreaker.StateOpen
}

// begin counts a request as in flight. It fails with ErrOverloaded if there are already limit,
// and with ErrTooMany if the client has its share of them. Otherwise the caller must call end.
func (a *address) begin(limit int, from Client) error {
	if !a.shares.begin(from) {
		return ErrTooMany
	}
	if a.inFlight.Add(1) > int64(limit) {
		a.inFlight.Add(-1)
		a.shares.end(from)
		return ErrOverloaded
	}
	a.requests.Inc()
	return nil
}

func (a *address) end(from Client) {
	a.requests.Dec()
	a.inFlight.Add(-1)
	a.shares.end(from)
}

// roundTrip sends req over an idle connection, if there is one that can be used.
func (a *address) roundTrip(req *http.Request, edit Edit) (*http.Response, error) {
	o := exchangeOptions{timeout: a.timeout, stall: a.stall, keep: a.keep, edit: edit}
	c := a.takeIdle()
	if c == nil {
		return a.onNew(req, o)
	}
	res, err := c.exchange(req, o)
	if err == nil || req.Context().Err() != nil || !retryable(req, err) {
		return res, err
	}
	if fault := rewind(req); fault != nil {
		return nil, errors.Join(err, fault)
	}
	return a.onNew(req, o)
}

func (a *address) onNew(req *http.Request, o exchangeOptions) (*http.Response, error) {
	if a.lost.Load() != nil {
		return nil, errUnreachable
	}
	c, err := a.dial(req.Context(), dialTimeout)
	if unreachable(err) {
		a.lose(req.Context(), err)
	}
	if err != nil {
		return nil, notSentError{fmt.Errorf("connect: %w", err)}
	}
	return c.exchange(req, o)
}

func (a *address) dial(caller context.Context, timeout time.Duration) (*conn, error) {
	ctx, cancel := context.WithTimeout(caller, timeout)
	defer cancel()
	dialer := net.Dialer{KeepAlive: keepAlive}
	plain, err := dialer.DialContext(ctx, "tcp", a.hostport)
	switch {
	case err != nil && caller.Err() != nil: // It says nothing about the address.
		return nil, errors.Join(caller.Err(), err)
	case err != nil:
		return nil, unreachableError{err}
	}
	c := plain
	if a.tls != nil {
		secure := tls.Client(plain, a.tls)
		if err := secure.HandshakeContext(ctx); err != nil {
			_ = plain.Close()
			return nil, err
		}
		c = secure
	}
	a.connections.Inc()
	return newConn(c, plain, a.connections.Dec), nil
}

// retryable reports whether req may be sent again after it failed on a kept connection:
// it was not sent at all, or its method is safe (RFC 9110, 9.2.1) and its body still there.
func retryable(req *http.Request, err error) bool {
	if _, ok := errors.AsType[notSentError](err); ok {
		return true
	}
	_, ok := errors.AsType[noResponseError](err)
	return ok && !isTimeout(err) && (req.Method == http.MethodGet || req.Method == http.MethodHead) && (!hasBody(req) || req.GetBody != nil)
}

func isTimeout(err error) bool {
	timeout, ok := errors.AsType[net.Error](err)
	return ok && timeout.Timeout()
}

// takeIdle returns the connection that was used last among those that are still quiet, or
// nil if there is none. It closes the others that it finds.
func (a *address) takeIdle() *conn {
	for {
		c := a.lastIdle()
		if c == nil || c.quiet() {
			return c
		}
		_ = c.Close()
	}
}

func (a *address) lastIdle() *conn {
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
