// User-service stores user profiles and serves them from a cache.
package main

import (
	"context"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/headgate/headgate/pkg/bus"
	"github.com/headgate/headgate/pkg/deadletter"
	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/pkg/outbox"
	"github.com/headgate/headgate/pkg/postgres"
	"github.com/headgate/headgate/pkg/reconcile"
	"github.com/headgate/headgate/pkg/service"
	"github.com/headgate/headgate/pkg/token"
	"github.com/headgate/headgate/pkg/web"
	"github.com/headgate/headgate/services/user-service/internal/api"
	"github.com/headgate/headgate/services/user-service/internal/profile"
	"github.com/headgate/headgate/services/user-service/internal/store"
)

const name = "user-service"

// cacheTimeout is how long a request waits for the cache before it reads from Postgres.
const cacheTimeout = 50 * time.Millisecond

func main() { service.Main(name, run, deadletter.Commands[Config](name)...) }

func run(ctx context.Context, s *service.Service, cfg Config) error {
	db, err := postgres.Open(ctx, cfg.Database, s.Log, outbox.Schema(), deadletter.Schema(), reconcile.WatermarksSchema(), reconcile.RecordsSchema(), store.Schema())
	if err != nil {
		return err
	}
	defer db.Close()
	redis, err := cfg.Redis.Open(bus.EventTimeout)
	if err != nil {
		return err
	}
	defer redis.Close()
	box := outbox.New(name)
	cacheClient, err := cfg.Redis.Open(cacheTimeout)
	if err != nil {
		return err
	}
	defer cacheClient.Close()

	profiles := profile.New(store.New(db, box), store.NewCache(cacheClient, s.Metrics, time.Now), time.Now)
	deadLetters := deadletter.New(db, box, time.Now)
	verifier := token.NewRemoteVerifier(cfg.Remote, cfg.Expected, s.Log, s.Metrics, time.Now)
	router := web.NewRouter(append(deadLetters.Routes(api.Prefix), api.Routes(profiles)...), web.Options{
		Auth:           verifier,
		TrustedProxies: cfg.GatewayNetworks,
		Development:    cfg.Development(),
		Log:            s.Log,
		Metrics:        s.Metrics,
		Unavailable:    postgres.Unavailable,
		Refused:        box.Refusals(db, s.Log),
		Ready:          s.Ready,
	})
	stream := bus.NewSubscriber(bus.SubscriberConfig{
		Client: redis, Group: name, Consumer: cfg.Instance(), Retain: cfg.StreamRetention,
		Log: s.Log, Metrics: s.Metrics,
	})
	s.Check("postgres", db.Ping)
	s.Check("stream", stream.Healthy)
	s.Check("redis", bus.Ping(redis))
	return s.Run(ctx,
		web.NewServer(cfg.Listener, router, s.Log),
		verifier,
		bus.NewFollower(redis, event.User, verifier.Observe, s.Log),
		outbox.NewRelay(db, bus.NewPublisher(redis), s.Log, s.Metrics),
		reconcile.NewProducer(reconcile.ProducerConfig{
			Name: name, Outbox: outbox.NewPublished(db), Redis: redis, Interval: cfg.ReconcileInterval, Log: s.Log, Metrics: s.Metrics,
		}),
		bus.NewConsumer(bus.ConsumerConfig{
			Topic:       event.User,
			Subscriber:  stream,
			Handlers:    api.Handlers(profiles),
			DeadLetters: deadLetters,
			Due:         []message.Subscriber{deadletter.NewReplays(deadLetters, s.Log)},
			Unavailable: api.Unavailable,
			Consumed:    reconcile.NewRecords(db, event.User).Record,
			Log:         s.Log,
			Metrics:     s.Metrics,
		}),
		reconcile.NewConsumer(reconcile.ConsumerConfig{
			Database: db, Redis: redis, Topic: event.User, Group: name, Interval: cfg.ReconcileInterval, Retention: reconcile.RecordRetention, Log: s.Log, Metrics: s.Metrics,
		}),
	)
}
