package web

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync/atomic"
	"time"
)

// Listener is the part of the configuration that says where a service listens.
type Listener struct {
	HTTPAddr   string        `envconfig:"HTTP_ADDR" default:":8080" desc:"Address that the service listens on."`
	DrainDelay time.Duration `envconfig:"DRAIN_DELAY" default:"3s" desc:"How long a stopping service goes on taking requests while /readyz says 503 already, so that whoever sends them sees that first; at most 15s, and a part of SHUTDOWN_TIMEOUT."`
}

// Validate implements service.Validator.
func (l Listener) Validate() error {
	if l.DrainDelay < 0 || l.DrainDelay > maxDrainDelay {
		return fmt.Errorf("DRAIN_DELAY: want 0 to %s", maxDrainDelay)
	}
	return nil
}

const (
	maxDrainDelay = 15 * time.Second
	// closeTimeout is how long requests under way have when no more come. With the default
	// DRAIN_DELAY it ends before SHUTDOWN_TIMEOUT does.
	closeTimeout = 20 * time.Second
)

// BehindGateway is the part of the configuration of a service that stands behind the
// gateway and takes the client's address from it.
type BehindGateway struct {
	GatewayNetworks Prefixes `envconfig:"GATEWAY_NETWORKS" default:"127.0.0.0/8,::1/128,10.0.0.0/8,172.16.0.0/12,192.168.0.0/16,fc00::/7" desc:"Networks, as CIDRs with commas, from which the gateway calls; only its X-Forwarded-For is believed."`
}

// Server is an HTTP server as a part of a service.
type Server struct {
	// ConnState, if it is there, is told of connections as that of http.Server.
	ConnState func(net.Conn, http.ConnState)

	cfg      Listener
	server   *http.Server
	draining atomic.Bool
}

// NewServer returns a server for handler with limits against slow and greedy
// clients.
func NewServer(cfg Listener, handler http.Handler, log *slog.Logger) *Server {
	s := &Server{cfg: cfg}
	s.server = &http.Server{
		Handler:           s.closeWhileDraining(handler),
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       20 * time.Second,
		WriteTimeout:      30 * time.Second,
		IdleTimeout:       60 * time.Second,
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
	return s
}

// closeWhileDraining asks clients to take their next request elsewhere while the server
// drains.
func (s *Server) closeWhileDraining(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if s.draining.Load() {
			w.Header()["Connection"] = []string{"close"}
		}
		next.ServeHTTP(w, r)
	})
}

// Run implements service.Runner: it serves until ctx ends, for DRAIN_DELAY more, and
// then lets the requests under way finish.
func (s *Server) Run(ctx context.Context) error {
	var lc net.ListenConfig
	listener, err := lc.Listen(ctx, "tcp", s.cfg.HTTPAddr)
	if err != nil {
		return fmt.Errorf("listen on HTTP_ADDR: %w", err)
	}
	return s.Serve(ctx, listener)
}

// Serve is Run on a listener, which it closes.
func (s *Server) Serve(ctx context.Context, listener net.Listener) error {
	s.server.ConnState = s.ConnState
	served := make(chan error, 1)
	go func() { served <- s.server.Serve(rawErrorListener{listener}) }()
	select {
	case err := <-served:
		return fmt.Errorf("serve http: %w", err)
	case <-ctx.Done():
	}
	s.draining.Store(true)
	select {
	case err := <-served:
		return fmt.Errorf("serve http: %w", err)
	case <-time.After(s.cfg.DrainDelay):
	}
	drain, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeTimeout)
	defer cancel()
	if err := s.server.Shutdown(drain); err != nil {
		return errors.Join(fmt.Errorf("drain http: %w", err), s.server.Close())
	}
	if err := <-served; !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve http: %w", err)
	}
	return nil
}
