// The gateway is the only public entry point: it routes by prefix, checks access tokens
// and enforces rate limits.
package main

import (
	"context"
	"fmt"
	"runtime/debug"
	"strings"
	"time"

	"github.com/headgate/headgate/pkg/bus"
	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/pkg/service"
	"github.com/headgate/headgate/pkg/token"
	"github.com/headgate/headgate/pkg/web"
	"github.com/headgate/headgate/services/gateway/internal/api"
	"github.com/headgate/headgate/services/gateway/internal/docs"
	"github.com/headgate/headgate/services/gateway/internal/ratelimit"
	"github.com/headgate/headgate/services/gateway/internal/realtime"
)

// limiterTimeout is how long a request waits for Redis before it is counted in memory.
const limiterTimeout = 100 * time.Millisecond

// ticketTimeout is how long a client waits for Redis to store or redeem its ticket.
const ticketTimeout = time.Second

// strictTransport tells browsers to use https for two years. It says nothing about
// subdomains, which may belong to others (RFC 6797, 6.1).
const strictTransport = "max-age=63072000"

// gcPercent trades memory for CPU time: the live heap is small compared with the garbage
// of the requests.
const gcPercent = 400

func main() { service.Main("gateway", run) }

func run(ctx context.Context, s *service.Service, cfg Config) error {
	if set := debug.SetGCPercent(gcPercent); set != 100 {
		debug.SetGCPercent(set) // GOGC is set and takes precedence.
	}
	redis, err := cfg.Redis.Open(limiterTimeout)
	if err != nil {
		return err
	}
	defer redis.Close()
	keys, err := cfg.PublicKeys.Keys(cfg.Common)
	if err != nil {
		return fmt.Errorf("check config: %w", err)
	}
	events, err := cfg.Redis.Open(bus.EventTimeout)
	if err != nil {
		return err
	}
	defer events.Close()
	outage := bus.LogOutages(events, s.Log)
	s.Notice("redis", func(context.Context) string { return bus.OutageNotice(outage) })
	apiDocs, err := docs.New(cfg.BrandName)
	if err != nil {
		return err
	}
	services := cfg.services(s.Log, s.Metrics)
	verifier := token.NewRemoteVerifier(cfg.Remote, cfg.Expected, s.Log, s.Metrics, time.Now)
	reports := api.NewReports(services["auth"], s.Log, s.Metrics, time.Now)
	limiter := ratelimit.New(redis, s.Log, s.Metrics, time.Now)
	tickets, err := cfg.Redis.Open(ticketTimeout)
	if err != nil {
		return err
	}
	defer tickets.Close()
	authenticity := bus.NewAuthenticity(cfg.PublicKeys, keys, s.Log, s.Metrics)
	hub := newHub(s, cfg, verifier, events, authenticity)
	handler := api.New(api.Config{
		Routes:     api.Routes,
		Services:   services,
		Verifier:   verifier,
		Limiter:    limiter,
		RateLimits: cfg.RateLimits,
		Reports:    reports,
		Docs:       apiDocs,
		CORS:       api.CORS{Origins: cfg.CORSOrigins, Headers: cfg.CORSHeaders},
		Realtime: api.Realtime{
			Hub: hub, Tickets: realtime.NewTickets(tickets), Sessions: verifier, StepUp: cfg.stepUp(), PublicURL: cfg.PublicBaseURL,
		},
		Version: service.Version(),
		Now:     time.Now,
		Edge: web.Options{
			TrustedProxies: cfg.TrustedProxies,
			Development:    cfg.Development(),
			Log:            s.Log,
			Metrics:        s.Metrics,
			Ready:          s.Ready,
		},
	})
	server := web.NewServer(cfg.Listener, handler, s.Log)
	if strings.HasPrefix(cfg.PublicBaseURL, "https:") {
		server.StrictTransport = strictTransport
	}
	server.Drain = hub.Drain
	server.ConnState = api.NewConnections(cfg.connections(s.Log, s.Metrics)).ConnState
	runners := []service.Runner{
		reports,
		limiter,
		verifier,
		bus.NewFollower(events, event.User, verifier.Observe, authenticity, s.Log),
		hub,
	}
	for name, upstream := range services {
		s.Check(name, upstream.Probed)
		runners = append(runners, upstream)
	}
	return s.Run(ctx, server, runners...)
}
