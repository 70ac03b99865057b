package web

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"
)

// Listener is the part of the configuration that says where a service listens.
type Listener struct {
	HTTPAddr string `envconfig:"HTTP_ADDR" default:":8080" desc:"Address that the service listens on."`
}

// Behind is the part of the configuration of a service that stands behind the
// gateway and takes the client's address from it.
type Behind struct {
	GatewayNetworks Prefixes `envconfig:"GATEWAY_NETWORKS" default:"127.0.0.0/8,::1/128,10.0.0.0/8,172.16.0.0/12,192.168.0.0/16,fc00::/7" desc:"Networks, as CIDRs with commas, from which the gateway calls; only its X-Forwarded-For is believed."`
}

// Server is an HTTP server as a part of a service.
type Server struct {
	addr    string
	server  *http.Server
	stopped time.Duration
}

// NewServer returns a server for handler with limits against slow and greedy
// clients.
func NewServer(cfg Listener, handler http.Handler, log *slog.Logger) *Server {
	return &Server{
		addr:    cfg.HTTPAddr,
		stopped: 25 * time.Second,
		server: &http.Server{
			Handler:           handler,
			ReadHeaderTimeout: 5 * time.Second,
			ReadTimeout:       20 * time.Second,
			WriteTimeout:      30 * time.Second,
			IdleTimeout:       90 * time.Second,
			MaxHeaderBytes:    16 << 10,
			ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelDebug),
		},
	}
}

// Run implements service.Runner: it serves until ctx ends, then lets the
// requests under way finish.
func (s *Server) Run(ctx context.Context) error {
	var lc net.ListenConfig
	listener, err := lc.Listen(ctx, "tcp", s.addr)
	if err != nil {
		return fmt.Errorf("listen on HTTP_ADDR: %w", err)
	}
	failed := make(chan error, 1)
	go func() { failed <- s.server.Serve(listener) }()
	select {
	case err := <-failed:
		return fmt.Errorf("serve http: %w", err)
	case <-ctx.Done():
	}
	drain, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.stopped)
	defer cancel()
	if err := s.server.Shutdown(drain); err != nil {
		return errors.Join(fmt.Errorf("drain http: %w", err), s.server.Close())
	}
	if err := <-failed; !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve http: %w", err)
	}
	return nil
}
