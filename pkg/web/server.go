package web

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync/atomic"
	"time"
)

// Listener is the part of the configuration for the public HTTP server.
type Listener struct {
	HTTPAddr    string        `envconfig:"HTTP_ADDR" default:"127.0.0.1:8080" desc:"Address on which the service listens. The default is for this machine alone; :8080 is for all networks."`
	TLSCertFile string        `envconfig:"TLS_CERT_FILE" desc:"Certificate chain in PEM. With it the service speaks HTTPS only. It is loaded again when the file changes. Clients trust what SSL_CERT_FILE and SSL_CERT_DIR say, if the certificate is not from a public authority."`
	TLSKeyFile  string        `envconfig:"TLS_KEY_FILE" desc:"Private key of TLS_CERT_FILE in PEM."`
	DrainDelay  time.Duration `envconfig:"DRAIN_DELAY" default:"3s" desc:"How long a stopping service still accepts requests while /readyz already returns 503, so that load balancers notice first. At most 15s; part of SHUTDOWN_TIMEOUT."`
}

// Validate implements service.Validator.
func (l Listener) Validate() error {
	if (l.TLSCertFile == "") != (l.TLSKeyFile == "") {
		return errors.New("TLS_CERT_FILE, TLS_KEY_FILE: set both or neither")
	}
	if l.DrainDelay < 0 || l.DrainDelay > maxDrainDelay {
		return fmt.Errorf("DRAIN_DELAY: want 0 to %s", maxDrainDelay)
	}
	return nil
}

const (
	maxDrainDelay = 15 * time.Second
	// closeTimeout is how long requests in flight may take once no more are accepted. With
	// the default DRAIN_DELAY it ends before SHUTDOWN_TIMEOUT.
	closeTimeout = 20 * time.Second

	// maxHeader limits the header of a client's request, in bytes. net/http reads up to 8 KiB
	// more.
	maxHeader = 16 << 10
	// maxGatewayHeader is enough for everything that the gateway makes of a header of 24 KiB: a
	// byte of the path can become three, and a header of three bytes five. A service that
	// rejected it would look faulty to the gateway, and one client could open the circuit
	// breaker for all.
	maxGatewayHeader = 6 * maxHeader
)

// BehindGateway is the part of the configuration of a service behind the gateway, from which
// it learns the client's address.
type BehindGateway struct {
	GatewayNetworks Prefixes `envconfig:"GATEWAY_NETWORKS" default:"127.0.0.0/8,::1/128,10.0.0.0/8,172.16.0.0/12,192.168.0.0/16,fc00::/7" desc:"Networks of the gateway, as comma-separated CIDRs. Only X-Forwarded-For or Forwarded headers from these are trusted."`
}

// Server is the public HTTP server of a service. It implements service.Runner.
type Server struct {
	// ConnState is that of http.Server. It may be nil.
	ConnState func(net.Conn, http.ConnState)

	// StrictTransport is the Strict-Transport-Security header of every response (RFC 6797).
	// It may be empty.
	StrictTransport string

	// FromGateway says that the gateway sends the requests. Its headers may be larger than
	// those of a client, because the gateway adds to what it has accepted.
	FromGateway bool

	// Drain is called when the server accepts no more requests, to end those that would last
	// for long and the connections that switched protocols, of which the server knows nothing
	// more. The server waits for it while the other requests finish. It may be nil.
	Drain func(context.Context) error

	cfg      Listener
	listener net.Listener // opened by Open
	log      *slog.Logger
	server   *http.Server
	draining atomic.Bool
}

// NewServer returns a server for handler with limits against slow and abusive clients.
func NewServer(cfg Listener, handler http.Handler, log *slog.Logger) *Server {
	s := &Server{cfg: cfg, log: log}
	s.server = &http.Server{
		Handler:           s.withHeaders(handler),
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       20 * time.Second,
		WriteTimeout:      30 * time.Second, // and more for a long response; see pace
		IdleTimeout:       60 * time.Second,
		MaxHeaderBytes:    maxHeader,
		ConnState:         s.connState,
		ConnContext:       withRawErrors,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelDebug),

		// "OPTIONS *" is for the handler to answer, like every other request.
		DisableGeneralOptionsHandler: true,
	}
	return s
}

func (s *Server) connState(c net.Conn, state http.ConnState) {
	if client, ok := clientOf(c); ok {
		switch state { //nolint:exhaustive // Nothing changes in the others.
		case http.StateIdle:
			client.errors.responding.Store(false)
		case http.StateHijacked:
			client.pace.stop()
		}
	}
	if s.ConnState != nil {
		s.ConnState(c, state)
	}
}

// withHeaders adds what every response has. It closes connections after the response while
// the server drains, so that clients send the next request elsewhere.
func (s *Server) withHeaders(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		respondItself(r.Context())
		if s.draining.Load() {
			w.Header()["Connection"] = []string{"close"}
		}
		if s.StrictTransport != "" {
			w.Header()[strictTransportHeader] = []string{s.StrictTransport}
		}
		next.ServeHTTP(w, r)
	})
}

const strictTransportHeader = "Strict-Transport-Security"

// Open implements service.Opener: it listens on HTTP_ADDR.
func (s *Server) Open(ctx context.Context) error {
	var lc net.ListenConfig
	listener, err := lc.Listen(ctx, "tcp", s.cfg.HTTPAddr)
	if err != nil {
		return fmt.Errorf("listen on HTTP_ADDR: %w", err)
	}
	s.listener = listener
	return nil
}

// Run implements service.Runner: it serves until ctx ends and for DRAIN_DELAY longer, and
// then lets the requests in flight finish. Open must have been called.
func (s *Server) Run(ctx context.Context) error { return s.Serve(ctx, s.listener) }

// Serve is Run on an open listener, which it closes.
func (s *Server) Serve(ctx context.Context, listener net.Listener) error {
	if s.FromGateway {
		s.server.MaxHeaderBytes = maxGatewayHeader
	}
	if s.cfg.TLSCertFile != "" {
		config, err := s.cfg.tlsConfig(s.log)
		if err != nil {
			return errors.Join(err, listener.Close())
		}
		listener = tls.NewListener(listener, config)
	}
	served := make(chan error, 1)
	go func() { served <- s.server.Serve(clientListener{listener, s.StrictTransport}) }()
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
	if err := s.shutdown(drain); err != nil {
		return errors.Join(fmt.Errorf("drain http: %w", err), s.server.Close())
	}
	if err := <-served; !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve http: %w", err)
	}
	return nil
}

// shutdown stops accepting requests and waits for those in flight and for Drain.
func (s *Server) shutdown(ctx context.Context) error {
	drained := make(chan error, 1)
	go func() {
		if s.Drain == nil {
			drained <- nil
			return
		}
		drained <- s.Drain(ctx)
	}()
	err := s.server.Shutdown(ctx)
	return errors.Join(err, <-drained)
}
