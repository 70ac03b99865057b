// Email-service sends the mails that events call for, each once.
package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/headgate/headgate/pkg/backend"
	"github.com/headgate/headgate/pkg/bus"
	"github.com/headgate/headgate/pkg/deadletter"
	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/pkg/postgres"
	"github.com/headgate/headgate/pkg/reconcile"
	"github.com/headgate/headgate/pkg/service"
	"github.com/headgate/headgate/services/email-service/internal/api"
	"github.com/headgate/headgate/services/email-service/internal/mail"
	"github.com/headgate/headgate/services/email-service/internal/smtp"
	"github.com/headgate/headgate/services/email-service/internal/store"
)

const name = "email-service"

var schemas = append(backend.ConsumerSchemas(), reconcile.RecordsSchema(), store.Schema())

// checked is an SQL condition: the database is no older copy of itself, or is prepared for
// being one.
var checked = reconcile.CheckedSQL(event.Email)

func main() {
	service.Main(name, run, append(backend.ConsumerCommands[Config](name, event.Email, schemas), resumeCommand, backend.ErasureReport(name, schemas, remains))...)
}

func run(ctx context.Context, s *service.Service, cfg Config) error {
	b, err := backend.Open(ctx, s, cfg.Config, schemas)
	if err != nil {
		return err
	}
	defer b.Close()
	server, err := smtp.ParseURL(cfg.SMTPURL.Reveal())
	if err != nil {
		return fmt.Errorf("SMTP_URL: %w", err)
	}
	server.Helo = cfg.SMTPHeloName
	sender, err := smtp.New(server, cfg.sender(), cfg.SMTPTimeout, cfg.SMTPConcurrency)
	if err != nil {
		return err
	}
	defer sender.Close()
	links, err := service.ParseKeys("EVENT_SEAL_KEY", cfg.EventSealKey)
	if err != nil {
		return err
	}
	sealer, err := event.NewSealer(links.Reveal())
	if err != nil {
		return fmt.Errorf("EVENT_SEAL_KEY: %w", err)
	}
	messages, deadLetters := store.New(b.DB, b.Outbox, b.Clock.Now, checked), deadletter.New(b.DB, b.Outbox, b.Clock.Now)
	s.Notice("mail", messages.WithheldNotice)
	s.Metrics.MustRegister(messages.Gauges()...)
	mailer, err := mail.NewMailer(mail.Config{
		Store: messages, Sender: sender, Sealer: sealer, BaseURL: cfg.PublicBaseURL, From: cfg.MailFrom, Brand: cfg.BrandName,
		Concurrency: cfg.SMTPConcurrency, RetryFirst: cfg.MailRetryFirst, Now: b.Clock.Now,
		Log: s.Log, Metrics: s.Metrics, Hint: b.Hints.Send,
	})
	if err != nil {
		return err
	}
	verifier := b.Verifier(cfg.Remote)
	consumer := b.Consumer(backend.ConsumerConfig{
		Topic:               event.Email,
		Handlers:            api.Handlers(mailer),
		DeadLetters:         deadLetters,
		DeadLetterRetention: cfg.DeadLetterRetention,
		Due: []bus.PollerConfig{{
			Take: messages.TakeDue, Renew: messages.RenewDue,
			Complete: messages.CompleteDue, Release: messages.ReleaseDue, Log: s.Log,
		}},
		Records:     reconcile.NewRecords(b.DB, event.Email),
		Restored:    messages.Withhold,
		Unavailable: api.Unavailable,
		Probe:       api.Probe(messages, sender),
		Window:      cfg.window(),
		Timeout:     cfg.attemptTimeout(),
	})
	router := b.Router(verifier, api.Routes(messages), deadLetters.Routes(api.Prefix))
	err = b.Run(ctx, router, append(consumer, verifier, b.Follower(verifier.Observe))...)
	return errors.Join(err, messages.Close(ctx))
}

func remains(ctx context.Context, _ Config, db *postgres.Pool, userID string) (map[string]int, error) {
	return store.Remains(ctx, db, userID)
}
