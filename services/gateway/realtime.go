package main

import (
	"time"

	goredis "github.com/redis/go-redis/v9"

	"github.com/headgate/headgate/pkg/bus"
	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/pkg/service"
	"github.com/headgate/headgate/pkg/token"
	"github.com/headgate/headgate/services/gateway/internal/realtime"
)

// newHub returns the hub of real-time events. It follows the user stream by itself: what
// browsers are told must not delay the revocations that the verifier learns.
func newHub(s *service.Service, cfg Config, verifier *token.RemoteVerifier, client goredis.UniversalClient, check *bus.Authenticity) *realtime.Hub {
	follow := func(topic event.Topic, observer func(*realtime.Hub) bus.Observer) func(*realtime.Hub) realtime.Runner {
		return func(h *realtime.Hub) realtime.Runner {
			return bus.NewProgressFollower(bus.ProgressConfig{
				Client: client, Topic: topic, Observer: observer(h), Check: check, Lookback: realtime.Lookback, Log: s.Log,
			})
		}
	}
	return realtime.NewHub(realtime.Config{
		Followers: []func(*realtime.Hub) realtime.Runner{follow(event.User, (*realtime.Hub).Users), follow(event.Realtime, (*realtime.Hub).Hints)},
		Ended:     verifier.Ended,
		Source:    realtime.NewRedis(client),
		Limits:    realtime.Limits{Total: cfg.RealtimeConnections, PerNetwork: cfg.RealtimeConnectionsPerIP, PerUser: cfg.RealtimeConnectionsPerUser},
		Now:       time.Now, Log: s.Log, Metrics: s.Metrics,
	})
}
