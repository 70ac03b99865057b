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

// ConnectionsConfig limits the connections of clients.
type ConnectionsConfig struct {
	Total      int
	PerNetwork int          // see event.Origin.Network
	Trusted    web.Prefixes // proxies, which connect on behalf of many clients
	Log        *slog.Logger
	Metrics    prometheus.Registerer
	Now        func() time.Time
}

// Connections closes connections beyond its limits, so that idle and slow clients cannot
// exhaust the process. It does not count connections that were upgraded, such as to
// WebSocket. It is safe for concurrent use.
type Connections struct {
	cfg     ConnectionsConfig
	refused *prometheus.CounterVec

	mu         sync.Mutex
	networks   map[string]int
	open       map[net.Conn]string // the network of each
	lastLogged time.Time
}

// logEvery is the minimum time between two log lines.
const logEvery = 10 * time.Second

// NewConnections returns Connections without any connection.
func NewConnections(cfg ConnectionsConfig) *Connections {
	c := &Connections{cfg: cfg, networks: map[string]int{}, open: map[net.Conn]string{}, refused: prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "headgate_connections_refused_total", Help: "Connections closed immediately because too many were open: in total, or from the same network.",
	}, []string{"limit"})}
	cfg.Metrics.MustRegister(c.refused, prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "headgate_connections_open", Help: "Open client connections.",
	}, func() float64 {
		c.mu.Lock()
		defer c.mu.Unlock()
		return float64(len(c.open))
	}))
	return c
}

// ConnState is the hook for web.Server's ConnState.
func (c *Connections) ConnState(conn net.Conn, state http.ConnState) {
	switch state {
	case http.StateNew:
		c.add(conn)
	case http.StateClosed, http.StateHijacked:
		c.remove(conn)
	case http.StateActive, http.StateIdle:
	}
}

func (c *Connections) add(conn net.Conn) {
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
	_ = conn.Close() // There is nothing to do about an error.
	c.refused.WithLabelValues(exceeded).Inc()
	if now := c.cfg.Now(); now.Sub(c.lastLogged) >= logEvery {
		c.lastLogged = now
		c.cfg.Log.Warn("too many connections; closing new ones", "limit", exceeded, "network", network, "open", len(c.open))
	}
}

func (c *Connections) remove(conn net.Conn) {
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
