// The gateway is the only door: it routes by prefix, checks tokens and counts
// requests against the limits.
package main

import (
	"context"
	"time"

	"github.com/headgate/headgate/pkg/bus"
	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/pkg/service"
	"github.com/headgate/headgate/pkg/token"
	"github.com/headgate/headgate/pkg/web"
	"github.com/headgate/headgate/services/gateway/internal/api"
	"github.com/headgate/headgate/services/gateway/internal/limit"
)

// limiterPatience is how long a request may wait for Redis before it is counted
// in memory.
const limiterPatience = 100 * time.Millisecond

func main() { service.Main("gateway", run) }

func run(ctx context.Context, s *service.Service, cfg Config) error {
	redis, err := cfg.Redis.Open(limiterPatience)
	if err != nil {
		return err
	}
	defer redis.Close()
	events, err := cfg.Redis.Open(bus.EventPatience)
	if err != nil {
		return err
	}
	defer events.Close()
	services, err := cfg.services()
	if err != nil {
		return err
	}
	verifier := token.NewRemoteVerifier(cfg.Remote, cfg.Expected, s.Log, time.Now)
	health := api.NewHealth(service.Version(), services)
	handler := api.New(api.Config{ //nolint:contextcheck // The proxy answers with the context of the request at hand.
		Services: services,
		Verifier: verifier,
		Limiter:  limit.New(redis, s.Log, s.Metrics, time.Now),
		Limits:   cfg.limits(),
		Health:   health,
		Timeout:  cfg.UpstreamTimeout,
		Now:      time.Now,
		Edge: web.Options{
			TrustedProxies: cfg.TrustedProxies,
			Development:    cfg.Development(),
			Log:            s.Log,
			Metrics:        s.Metrics,
			Live:           service.Livez,
			Ready:          s.PublicReadyz,
		},
	})
	return s.Run(ctx,
		web.NewServer(cfg.Listener, handler, s.Log),
		health,
		verifier,
		bus.NewFollower(events, event.User, verifier.Observe, s.Log),
	)
}
