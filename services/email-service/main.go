// Email-service sends the mails that facts call for, each once.
package main

import (
	"context"
	"fmt"
	"time"

	"github.com/headgate/headgate/pkg/bus"
	"github.com/headgate/headgate/pkg/deadletter"
	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/pkg/outbox"
	"github.com/headgate/headgate/pkg/postgres"
	"github.com/headgate/headgate/pkg/service"
	"github.com/headgate/headgate/pkg/token"
	"github.com/headgate/headgate/pkg/web"
	"github.com/headgate/headgate/services/email-service/internal/api"
	"github.com/headgate/headgate/services/email-service/internal/mail"
	"github.com/headgate/headgate/services/email-service/internal/smtp"
	"github.com/headgate/headgate/services/email-service/internal/store"
)

const name = "email-service"

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
	messages, letters := store.New(db, outbox.New(name), time.Now), deadletter.New(db, time.Now)
	mailer, err := mail.NewMailer(mail.Config{
		Store: messages, Sender: sender, Sealer: sealer, BaseURL: cfg.PublicBaseURL, From: cfg.MailFrom,
		Concurrency: cfg.SMTPConcurrency, Now: time.Now,
	})
	if err != nil {
		return err
	}
	router := web.NewRouter(append(api.Routes(messages), letters.Routes(api.Prefix)...), web.Options{
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
			Topic: event.Email,
			Subscriber: bus.NewSubscriber(bus.SubscriberConfig{
				Client: redis, Group: name, Consumer: cfg.Instance(), Window: cfg.window(), Log: s.Log,
			}),
			Handlers:    api.Handlers(mailer),
			DeadLetters: letters,
			Timeout:     cfg.attemptTimeout(),
			Log:         s.Log,
			Metrics:     s.Metrics,
		}),
	)
}
