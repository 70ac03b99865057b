// Email-service sends the mails that events call for, each once.
package main

import (
	"context"
	"fmt"
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
	"github.com/headgate/headgate/services/email-service/internal/api"
	"github.com/headgate/headgate/services/email-service/internal/mail"
	"github.com/headgate/headgate/services/email-service/internal/smtp"
	"github.com/headgate/headgate/services/email-service/internal/store"
)

const name = "email-service"

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
	server, err := smtp.ParseURL(cfg.SMTPURL.Reveal())
	if err != nil {
		return fmt.Errorf("SMTP_URL: %w", err)
	}
	sender, err := smtp.New(server, cfg.MailFrom, cfg.SMTPTimeout, cfg.SMTPConcurrency)
	if err != nil {
		return err
	}
	defer sender.Close()
	sealer, err := event.NewSealer(cfg.EventSealKey.Reveal())
	if err != nil {
		return fmt.Errorf("EVENT_SEAL_KEY: %w", err)
	}
	messages, deadLetters := store.New(db, box, time.Now), deadletter.New(db, box, time.Now)
	mailer, err := mail.NewMailer(mail.Config{
		Store: messages, Sender: sender, Sealer: sealer, BaseURL: cfg.PublicBaseURL, From: cfg.MailFrom,
		Concurrency: cfg.SMTPConcurrency, RetryFirst: cfg.MailRetryFirst, Now: time.Now,
	})
	if err != nil {
		return err
	}
	verifier := token.NewRemoteVerifier(cfg.Remote, cfg.Expected, s.Log, s.Metrics, time.Now)
	router := web.NewRouter(append(api.Routes(messages), deadLetters.Routes(api.Prefix)...), web.Options{
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
		Client: redis, Group: name, Consumer: cfg.Instance(), Window: cfg.window(), Retain: cfg.StreamRetention,
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
			Topic:       event.Email,
			Subscriber:  stream,
			Handlers:    api.Handlers(mailer),
			DeadLetters: deadLetters,
			Due: []message.Subscriber{
				deadletter.NewReplays(deadLetters, s.Log),
				bus.NewPoller(bus.PollerConfig{Take: messages.TakeDue, Complete: messages.CompleteDue, Release: messages.ReleaseDue, Log: s.Log}),
			},
			Unavailable: api.Unavailable,
			Consumed:    reconcile.NewRecords(db, event.Email).Record,
			Timeout:     cfg.attemptTimeout(),
			Log:         s.Log,
			Metrics:     s.Metrics,
		}),
		reconcile.NewConsumer(reconcile.ConsumerConfig{
			Database: db, Redis: redis, Topic: event.Email, Group: name, Interval: cfg.ReconcileInterval, Retention: reconcile.RecordRetention, Log: s.Log, Metrics: s.Metrics,
		}),
	)
}
