package api_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"

	"github.com/headgate/headgate/pkg/bus"
	"github.com/headgate/headgate/pkg/deadletter"
	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/pkg/outbox"
	"github.com/headgate/headgate/pkg/postgres"
	"github.com/headgate/headgate/pkg/reconcile"
	"github.com/headgate/headgate/pkg/testkit"
	"github.com/headgate/headgate/pkg/token"
	"github.com/headgate/headgate/pkg/web"
	"github.com/headgate/headgate/services/email-service/internal/api"
	"github.com/headgate/headgate/services/email-service/internal/mail"
	"github.com/headgate/headgate/services/email-service/internal/smtp"
	"github.com/headgate/headgate/services/email-service/internal/smtptest"
	"github.com/headgate/headgate/services/email-service/internal/store"
)

func TestMain(m *testing.M) { testkit.Main(m) }

// service is email-service: its routes over HTTP and its consumers.
type service struct {
	*httptest.Server
	t           *testing.T
	smtp        *smtptest.Server
	issuer      *testkit.Issuer
	redis       *redis.Client
	db          *postgres.Pool
	sealer      *event.Sealer
	deadLetters *deadletter.Store
	routes      []web.Route
	log         *slog.Logger
	metrics     *prometheus.Registry // of the consumer that was started last
}

const baseURL = "https://id.example.com"

// newService starts everything with one instance of the consumer.
func newService(t *testing.T) *service {
	t.Helper()
	s := newServiceWithoutConsumer(t)
	s.consume("a")
	return s
}

// newServiceWithoutConsumer starts everything but a consumer.
func newServiceWithoutConsumer(t *testing.T) *service {
	t.Helper()
	s := &service{
		t: t, smtp: smtptest.New(t), issuer: testkit.NewIssuer(t), redis: testkit.Redis(t),
		db:  testkit.Database(t, outbox.Schema(), deadletter.Schema(), reconcile.RecordsSchema(), store.Schema()),
		log: testkit.Log(t),
	}
	s.sealer = testkit.Sealer(t, strings.Repeat("0123456789", 4))
	s.deadLetters = deadletter.New(s.db, outbox.New("email-service"), time.Now)
	messages := store.New(s.db, outbox.New("email-service"), time.Now, "true")
	s.routes = append(api.Routes(messages), s.deadLetters.Routes(api.Prefix)...)
	s.Server = httptest.NewServer(web.NewRouter(s.routes, web.Options{
		Auth: s.issuer.Verifier(), Log: testkit.Log(t), Metrics: prometheus.NewRegistry(), Read: outbox.New("email-service").Reads(s.db),
	}))
	t.Cleanup(s.Close)
	return s
}

// consume starts an instance of the consumer, which stops with the test at the latest.
func (s *service) consume(name string) testkit.Running {
	s.t.Helper()
	server, err := smtp.ParseURL(s.smtp.URL)
	if err != nil {
		s.t.Fatal(err)
	}
	const from = "Headgate <no-reply@example.com>"
	sender, err := smtp.New(server, from, 5*time.Second, 4)
	if err != nil {
		s.t.Fatal(err)
	}
	s.metrics = prometheus.NewRegistry()
	messages := store.New(s.db, outbox.New("email-service"), time.Now, "true")
	mailer, err := mail.NewMailer(mail.Config{
		Store: messages, Sender: sender, Sealer: s.sealer,
		BaseURL: baseURL, From: from, Concurrency: 4, RetryFirst: 200 * time.Millisecond, Now: time.Now,
		Log: s.log, Metrics: s.metrics,
	})
	if err != nil {
		s.t.Fatal(err)
	}
	consumer := bus.NewConsumer(bus.ConsumerConfig{
		Topic:      event.Email,
		Subscriber: bus.NewSubscriber(bus.SubscriberConfig{Client: s.redis, Group: "email-service", Consumer: name, Log: s.log}),
		Due: []message.Subscriber{
			bus.NewPoller(s.deadLetters.Replays(s.log)),
			bus.NewPoller(bus.PollerConfig{Take: messages.TakeDue, Renew: messages.RenewDue, Complete: messages.CompleteDue, Release: messages.ReleaseDue, Every: 50 * time.Millisecond, Log: s.log}),
		},
		Handlers: api.Handlers(mailer), DeadLetters: s.deadLetters, Unavailable: api.Unavailable, Probe: api.Probe(messages, sender), Contended: postgres.Contended,
		Consumed: reconcile.NewRecords(s.db, event.Email).Record, Log: s.log, Metrics: s.metrics,
	})
	s.t.Cleanup(func() { sender.Close() })
	return testkit.Run(s.t, consumer)
}

// get calls path with a token of the role, or without one, and decodes the answer.
func (s *service) get(path, role string, answer any) int {
	s.t.Helper()
	req, err := http.NewRequestWithContext(s.t.Context(), http.MethodGet, s.URL+path, http.NoBody)
	if err != nil {
		s.t.Fatal(err)
	}
	if role != "" {
		req.Header.Set("Authorization", "Bearer "+s.issuer.Token(token.Identity{Role: role}))
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		s.t.Fatal(err)
	}
	defer res.Body.Close()
	if err := json.NewDecoder(res.Body).Decode(answer); err != nil {
		s.t.Fatal(err)
	}
	return res.StatusCode
}

const token1 = "the-token-of-the-link"

// requested returns the event that asks for a verification mail.
func (s *service) requested(to string, change func(*event.UserVerificationRequested)) event.Event {
	userID := uuid.NewString()
	p := event.UserVerificationRequested{
		Email: to, Name: "Ann", Token: s.sealer.Seal(token1, event.LinkContext(event.UserVerificationRequested{}, userID)), ExpiresAt: time.Now().Add(time.Hour),
	}
	if change != nil {
		change(&p)
	}
	ctx := event.WithOrigin(context.Background(), event.Origin{RequestID: "request-1", CorrelationID: "request-1"})
	return testkit.NewEvent(ctx, userID, p)
}

func (s *service) publish(events ...event.Event) {
	s.t.Helper()
	testkit.Publish(s.t, s.redis, event.Email, events...)
}

func newAddress() string { return uuid.NewString() + "@example.org" }

func (s *service) wantMails(to string, n int) []smtptest.Mail {
	s.t.Helper()
	testkit.Eventually(s.t, func() error {
		if got := len(s.smtp.To(to)); got != n {
			return fmt.Errorf("%d mails to %s, want %d", got, to, n)
		}
		return nil
	})
	return s.smtp.To(to)
}

// wantAcknowledged waits until every entry of the stream is acknowledged.
func (s *service) wantAcknowledged() {
	s.t.Helper()
	testkit.WantAcknowledged(s.t, s.redis, event.Email)
}

// wantDeadLetter waits for the dead letter of e and returns its id.
func (s *service) wantDeadLetter(e event.Event, class string, attempts int) (id string) {
	s.t.Helper()
	testkit.Eventually(s.t, func() error {
		deadLetters, err := s.deadLetters.List(s.t.Context(), deadletter.Filter{}, "", 100)
		if err != nil {
			return err
		}
		for _, d := range deadLetters {
			if d.EventID != nil && *d.EventID == e.ID {
				if d.Class != class || d.Attempts != attempts {
					return fmt.Errorf("dead letter = %+v, want %s after %d attempts", d, class, attempts)
				}
				id = d.ID
				return nil
			}
		}
		return fmt.Errorf("no dead letter of %s among %d", e.ID, len(deadLetters))
	})
	return id
}

// wantStatus waits for the state of a delivery. A scheduled attempt is not an entry of
// the stream, so wantAcknowledged does not wait for it.
func (s *service) wantStatus(e event.Event, status string, attempts int) {
	s.t.Helper()
	testkit.Eventually(s.t, func() error {
		if got, n := s.status(e); got != status || n != attempts {
			return fmt.Errorf("message is %s after %d attempts, want %s after %d", got, n, status, attempts)
		}
		return nil
	})
}

func (s *service) status(e event.Event) (status string, attempts int) {
	s.t.Helper()
	err := s.db.QueryRow(s.t.Context(), `SELECT status, attempts FROM messages WHERE event_id = $1`, e.ID).Scan(&status, &attempts)
	if err != nil {
		s.t.Fatal(err)
	}
	return status, attempts
}

func (s *service) outboxed(e event.Event, name string) int {
	s.t.Helper()
	var n int
	err := s.db.QueryRow(s.t.Context(), `SELECT count(*) FROM outbox WHERE name = $1 AND payload ->> 'causationId' = $2`, name, e.ID).Scan(&n)
	if err != nil {
		s.t.Fatal(err)
	}
	return n
}
