// User-service keeps profiles.
package main

import (
	"context"
	"time"

	"github.com/headgate/headgate/pkg/bus"
	"github.com/headgate/headgate/pkg/deadletter"
	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/pkg/outbox"
	"github.com/headgate/headgate/pkg/postgres"
	"github.com/headgate/headgate/pkg/service"
	"github.com/headgate/headgate/pkg/token"
	"github.com/headgate/headgate/pkg/web"
	"github.com/headgate/headgate/services/user-service/internal/api"
	"github.com/headgate/headgate/services/user-service/internal/profile"
	"github.com/headgate/headgate/services/user-service/internal/store"
)

const name = "user-service"

// cachePatience is how long a request may wait for the cache before it does
// without.
const cachePatience = 50 * time.Millisecond

func main() { service.Main(name, run) }

func run(ctx context.Context, s *service.Service, cfg Config) error {
	db, err := postgres.Open(ctx, cfg.Database, s.Log, outbox.Schema(), deadletter.Schema(), store.Schema())
	if err != nil {
		return err
	}
	defer db.Close()
	redis, err := cfg.Redis.Open(bus.EventPatience)
	if err != nil {
		return err
	}
	defer redis.Close()
	cacheClient, err := cfg.Redis.Open(cachePatience)
	if err != nil {
		return err
	}
	defer cacheClient.Close()

	profiles := profile.New(store.New(db, outbox.New(name)), store.NewCache(cacheClient, s.Metrics, time.Now), time.Now)
	letters := deadletter.New(db, time.Now)
	router := web.NewRouter(append(letters.Routes(api.Prefix), api.Routes(profiles)...), web.Options{
		Auth:           token.NewVerifier(token.NewJWKS(cfg.Remote, s.Log, time.Now), cfg.Expected, time.Now),
		TrustedProxies: cfg.GatewayNetworks,
		Development:    cfg.Development(),
		Log:            s.Log,
		Metrics:        s.Metrics,
		Live:           service.Livez,
		Ready:          s.PublicReadyz,
	})
	s.Check("postgres", db.Ping)
	s.Check("redis", bus.Ping(redis))
	return s.Run(ctx,
		web.NewServer(cfg.Listener, router, s.Log),
		outbox.NewRelay(db, bus.NewPublisher(redis), s.Log, s.Metrics),
		bus.NewConsumer(bus.ConsumerConfig{
			Topic: event.User,
			Subscriber: bus.NewSubscriber(bus.SubscriberConfig{
				Client: redis, Group: name, Consumer: cfg.Instance(), Log: s.Log,
			}),
			Handlers:    api.Handlers(profiles),
			DeadLetters: letters,
			Log:         s.Log,
			Metrics:     s.Metrics,
		}),
	)
}
