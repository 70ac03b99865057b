// Audit-service records every security-relevant fact, once, and shows the log
// to those who may read it.
package main

import (
	"context"
	"time"

	"github.com/headgate/headgate/pkg/bus"
	"github.com/headgate/headgate/pkg/deadletter"
	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/pkg/postgres"
	"github.com/headgate/headgate/pkg/service"
	"github.com/headgate/headgate/pkg/token"
	"github.com/headgate/headgate/pkg/web"
	"github.com/headgate/headgate/services/audit-service/internal/api"
	"github.com/headgate/headgate/services/audit-service/internal/store"
)

const name = "audit-service"

func main() { service.Main(name, run) }

func run(ctx context.Context, s *service.Service, cfg Config) error {
	db, err := postgres.Open(ctx, cfg.Database, s.Log, deadletter.Schema(), store.Schema())
	if err != nil {
		return err
	}
	defer db.Close()
	redis, err := cfg.Redis.Open(bus.EventPatience)
	if err != nil {
		return err
	}
	defer redis.Close()

	log, letters := store.New(db), deadletter.New(db, time.Now)
	router := web.NewRouter(append(api.Routes(log), letters.Routes(api.Prefix)...), web.Options{
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
		bus.NewConsumer(bus.ConsumerConfig{
			Topic: event.Audit,
			Subscriber: bus.NewSubscriber(bus.SubscriberConfig{
				Client: redis, Group: name, Consumer: cfg.Instance(), Log: s.Log,
			}),
			Rest:        log.Add, // The log keeps facts that this release has not heard of.
			DeadLetters: letters,
			Log:         s.Log,
			Metrics:     s.Metrics,
		}),
	)
}
