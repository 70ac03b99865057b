package api

import (
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/pkg/web"
)

// ConnectionsConfig says how many clients may be connected.
type ConnectionsConfig struct {
	Total      int
	PerNetwork int          // see event.Origin.Network
	Trusted    web.Prefixes // proxies, which connect for many
	Log        *slog.Logger
	Metrics    prometheus.Registerer
	Now        func() time.Time
}

// Connections closes what is connected beyond its limits, so that idle and slow
// clients cannot take all that the process has. A connection that was taken over,
// for WebSocket, is no longer counted. It is safe for concurrent use.
type Connections struct {
	cfg     ConnectionsConfig
	refused *prometheus.CounterVec

	mu       sync.Mutex
	networks map[string]int
	open     map[net.Conn]string // the network of each
	told     time.Time
}

// toldEvery is the least time between two lines of log on the same nuisance.
const toldEvery = 10 * time.Second

// NewConnections returns limits of connections.
func NewConnections(cfg ConnectionsConfig) *Connections {
	c := &Connections{cfg: cfg, networks: map[string]int{}, open: map[net.Conn]string{}, refused: prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "headgate_connections_refused_total", Help: "Connections closed at once because too many were open: in all, or from the same network.",
	}, []string{"limit"})}
	cfg.Metrics.MustRegister(c.refused, prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "headgate_connections_open", Help: "Connections of clients.",
	}, func() float64 {
		c.mu.Lock()
		defer c.mu.Unlock()
		return float64(len(c.open))
	}))
	return c
}

// Observe is for web.Server's ConnState.
func (c *Connections) Observe(conn net.Conn, state http.ConnState) {
	switch state {
	case http.StateNew:
		c.enter(conn)
	case http.StateClosed, http.StateHijacked:
		c.leave(conn)
	case http.StateActive, http.StateIdle:
	}
}

func (c *Connections) enter(conn net.Conn) {
	addr, ok := conn.RemoteAddr().(*net.TCPAddr)
	if !ok {
		return
	}
	ip := addr.AddrPort().Addr().Unmap().WithZone("")
	network := event.Origin{IP: ip.String()}.Network()

	c.mu.Lock()
	defer c.mu.Unlock()
	exceeded := ""
	switch {
	case len(c.open) >= c.cfg.Total:
		exceeded = "total"
	case c.networks[network] >= c.cfg.PerNetwork && !c.cfg.Trusted.Contain(ip):
		exceeded = "network"
	}
	if exceeded == "" {
		c.open[conn] = network
		c.networks[network]++
		return
	}
	_ = conn.Close() // It is of no use to anybody.
	c.refused.WithLabelValues(exceeded).Inc()
	if now := c.cfg.Now(); now.Sub(c.told) >= toldEvery {
		c.told = now
		c.cfg.Log.Warn("too many connections: new ones are closed", "limit", exceeded, "network", network, "open", len(c.open))
	}
}

func (c *Connections) leave(conn net.Conn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	network, ok := c.open[conn]
	if !ok {
		return
	}
	delete(c.open, conn)
	if c.networks[network]--; c.networks[network] == 0 {
		delete(c.networks, network)
	}
}
