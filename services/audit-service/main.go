// Audit-service records every security-relevant event once, and serves the log to those
// who may read it.
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
	"github.com/headgate/headgate/services/audit-service/internal/api"
	"github.com/headgate/headgate/services/audit-service/internal/store"
)

const name = "audit-service"

// window is the number of events in flight, which share inserts.
const window = 1000

func main() {
	service.Main(name, run, append(deadletter.Commands[Config](name), gapsCommand)...)
}

func run(ctx context.Context, s *service.Service, cfg Config) error {
	db, err := postgres.Open(ctx, cfg.Database, s.Log, outbox.Schema(), deadletter.Schema(), reconcile.WatermarksSchema(), store.Schema())
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

	log, deadLetters := store.New(db), deadletter.New(db, box, time.Now)
	verifier := token.NewRemoteVerifier(cfg.Remote, cfg.Expected, s.Log, s.Metrics, time.Now)
	router := web.NewRouter(append(api.Routes(log), deadLetters.Routes(api.Prefix)...), web.Options{
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
		Client: redis, Group: name, Consumer: cfg.Instance(), Window: window, Retain: cfg.StreamRetention,
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
			Topic:       event.Audit,
			Subscriber:  stream,
			Rest:        log.Add, // The log also records events that this release does not know.
			DeadLetters: deadLetters,
			Due:         []message.Subscriber{deadletter.NewReplays(deadLetters, s.Log)},
			Unavailable: postgres.Unavailable,
			Log:         s.Log,
			Metrics:     s.Metrics,
		}),
		reconcile.NewConsumer(reconcile.ConsumerConfig{
			Database: db, Redis: redis, Topic: event.Audit, Group: name, Interval: cfg.ReconcileInterval, Log: s.Log, Metrics: s.Metrics,
		}),
	)
}
