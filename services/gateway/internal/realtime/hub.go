// Package realtime tells clients what happens to their accounts. Each gateway follows the
// streams by itself and keeps the latest messages, so a client can continue at any of them. It
// knows no HTTP.
package realtime

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/headgate/headgate/pkg/problem"
	"github.com/headgate/headgate/pkg/token"
)

// The errors of clients that cannot connect.
var (
	ErrUnavailable = problem.New(problem.Unavailable, "realtime_unavailable", "Real-time events are temporarily unavailable. Try again later.").WithRetryAfter(2 * time.Second)
	ErrFull        = problem.New(problem.Unavailable, "realtime_overloaded", "Too many real-time connections are open. Try again later.").WithRetryAfter(10 * time.Second)
	ErrTooMany     = problem.New(problem.TooManyRequests, "too_many_connections", "You have too many real-time connections. Close some of them, then retry.").WithRetryAfter(10 * time.Second)
)

// Limits limit the connections of one gateway.
type Limits struct {
	Total, PerNetwork, PerUser int
}

// Source is what a hub reads from Redis.
type Source interface {
	// Epoch returns a value that changes when Redis loses its data.
	Epoch(ctx context.Context) (string, error)
	// Lags returns how far the consumer groups are behind.
	Lags(ctx context.Context) ([]Lag, error)
}

// Config is what a Hub needs.
type Config struct {
	// Followers return the followers of the streams, with the Observers of the hub. They begin
	// Lookback in the past.
	Followers []func(*Hub) Runner

	Ended   func(token.Session) error // as token.Verifier.Ended
	Source  Source
	Limits  Limits
	Now     func() time.Time
	Log     *slog.Logger
	Metrics prometheus.Registerer
}

// Hub delivers messages to connections. Its Run must be running. It is safe for concurrent
// use.
type Hub struct {
	cfg     Config
	metrics *metrics

	mu       sync.Mutex
	epoch    string // empty until it is known
	at       marks  // Everything up to it was delivered.
	began    [streams]bool
	caughtUp [streams]bool
	ring     *ring
	conns    map[*Conn]struct{}
	to       map[audience]map[*Conn]struct{}
	entered  int // connections, and requests that may become one
	networks map[string]int
	draining chan struct{} // nil before Drain; closed when nothing is left
}

// NewHub returns a hub without connections.
func NewHub(cfg Config) *Hub {
	h := &Hub{cfg: cfg, ring: newRing(marks{}), conns: map[*Conn]struct{}{}, to: map[audience]map[*Conn]struct{}{}, networks: map[string]int{}}
	h.metrics = newMetrics(cfg.Metrics, h)
	return h
}

// Enter counts a client from a network against the limits, before anything else is done for
// it. It fails with ErrFull, ErrTooMany or ErrUnavailable. leave must be called when the client
// has gone.
func (h *Hub) Enter(network string) (leave func(), err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case h.draining != nil:
		h.metrics.refused.WithLabelValues("draining").Inc()
		return nil, ErrUnavailable
	case h.entered >= h.cfg.Limits.Total:
		h.metrics.refused.WithLabelValues("total").Inc()
		return nil, ErrFull
	case h.networks[network] >= h.cfg.Limits.PerNetwork:
		h.metrics.refused.WithLabelValues("network").Inc()
		return nil, ErrTooMany
	}
	h.entered++
	h.networks[network]++
	return sync.OnceFunc(func() { h.leave(network) }), nil
}

func (h *Hub) leave(network string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.entered--
	if h.networks[network]--; h.networks[network] == 0 {
		delete(h.networks, network)
	}
	if h.draining != nil && h.entered == 0 {
		close(h.draining)
	}
}

// aheadTimeout is how long Open waits until this gateway has read what another one has already
// shown to the client. That takes a second and a half if nothing happens.
const aheadTimeout = 5 * time.Second

// Open connects a client that has entered. It fails with ErrUnavailable or ErrTooMany, and with
// the error of Config.Ended if the session has ended. The caller closes the connection.
func (h *Hub) Open(ctx context.Context, client Client) (*Conn, error) {
	if client.After != nil {
		h.awaitPosition(ctx, *client.After)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	user := audience{user: client.Identity.UserID}
	switch {
	case h.draining != nil:
		return nil, ErrUnavailable
	case !h.ready():
		h.metrics.refused.WithLabelValues("unavailable").Inc()
		return nil, ErrUnavailable
	case len(h.to[user]) >= h.cfg.Limits.PerUser:
		h.metrics.refused.WithLabelValues("user").Inc()
		return nil, ErrTooMany
	}
	// The hub is locked: a session that ends later is found among the connections.
	if err := h.cfg.Ended(client.Session); err != nil {
		return nil, err
	}
	c := &Conn{hub: h, client: client, to: []audience{user}, queue: make(chan *Message, queueLimit)}
	for _, channel := range client.Channels {
		c.to = append(c.to, audience{channel: channel})
	}
	c.ctx, c.cancel = context.WithCancelCause(context.WithoutCancel(ctx))
	c.backlog = h.resume(c)
	h.conns[c] = struct{}{}
	for _, a := range c.to {
		if h.to[a] == nil {
			h.to[a] = map[*Conn]struct{}{}
		}
		h.to[a][c] = struct{}{}
	}
	h.metrics.connections.WithLabelValues(client.Transport).Inc()
	return c, nil
}

// ready reports whether everything up to the present was read. The hub is locked.
func (h *Hub) ready() bool {
	for _, done := range h.caughtUp {
		if !done {
			return false
		}
	}
	return h.epoch != ""
}

// awaitPosition waits until this gateway has read everything up to p, for up to aheadTimeout.
func (h *Hub) awaitPosition(ctx context.Context, p Position) {
	ctx, cancel := context.WithTimeout(ctx, aheadTimeout)
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		h.mu.Lock()
		ahead := h.epoch == p.epoch && h.behind(p)
		h.mu.Unlock()
		if !ahead {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// behind reports whether this gateway has not read everything up to p. The hub is locked.
func (h *Hub) behind(p Position) bool {
	for i, at := range p.at {
		if h.at[i].Before(at) {
			return true
		}
	}
	return false
}

// resume returns the first messages to a connection. The hub is locked.
func (h *Hub) resume(c *Conn) []*Message {
	var first []*Message
	switch after := c.client.After; {
	case after == nil:
	case after.epoch == h.epoch && !h.behind(*after) && h.ring.covers(after.at):
		h.metrics.resumes.WithLabelValues("resumed").Inc()
		first = h.ring.after(after.at, c.to)
	default:
		h.metrics.resumes.WithLabelValues("failed").Inc()
		first = append(first, h.control(fact{kind: typeResumeFailed, data: noData{}}))
	}
	return append(first, h.control(fact{kind: typeOpened, data: noData{}}))
}

// control returns a message about the connection. The hub is locked.
func (h *Hub) control(f fact) *Message {
	f.at = h.cfg.Now()
	return encode(Position{h.epoch, h.at}, f)
}

func (h *Hub) remove(c *Conn) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if _, ok := h.conns[c]; !ok {
		return
	}
	delete(h.conns, c)
	for _, a := range c.to {
		if delete(h.to[a], c); len(h.to[a]) == 0 {
			delete(h.to, a)
		}
	}
	h.metrics.closed(c)
}
