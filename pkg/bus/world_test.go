package bus_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"

	"github.com/headgate/headgate/pkg/bus"
	"github.com/headgate/headgate/pkg/deadletter"
	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/pkg/outbox"
	"github.com/headgate/headgate/pkg/testkit"
)

func TestMain(m *testing.M) { testkit.Main(m) }

// newMessage returns a message as the outbox publishes it.
func newMessage(t *testing.T, p event.Payload) *message.Message {
	t.Helper()
	return testkit.Message(t, testkit.NewEvent(t.Context(), "subject", p))
}

// world is a stream with one consumer and its dead letters.
type world struct {
	t       *testing.T
	client  redis.UniversalClient
	db      *pgxpool.Pool
	letters *deadletter.Store
	metrics *prometheus.Registry // of the consumer that was started last

	mu       sync.Mutex
	seen     map[string]int
	consumed map[string]int
}

var errAway = errors.New("the dependency is away")

func (w *world) recordConsumed(_ context.Context, e event.Event) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.consumed[e.ID]++
	return nil
}

func newWorld(t *testing.T, client redis.UniversalClient) *world {
	t.Helper()
	db := testkit.Database(t, outbox.Schema(), deadletter.Schema())
	return &world{t: t, client: client, db: db, letters: deadletter.New(db, outbox.New("test"), time.Now), seen: map[string]int{}, consumed: map[string]int{}}
}

// consume runs a consumer until the test ends or it is stopped.
func (w *world) consume(name string, handler bus.Handler, changes ...func(*bus.SubscriberConfig)) testkit.Running {
	w.t.Helper()
	if handler == nil {
		handler = w.count
	}
	log := testkit.Log(w.t)
	stream := bus.SubscriberConfig{Client: w.client, Group: "test", Consumer: name, MaxIdle: 600 * time.Millisecond, Log: log}
	for _, change := range changes {
		change(&stream)
	}
	w.metrics = prometheus.NewRegistry()
	consumer := bus.NewConsumer(bus.ConsumerConfig{
		Topic:       event.Audit,
		Subscriber:  bus.NewSubscriber(stream),
		Handlers:    map[string]bus.Handler{event.UserLoggedIn{}.EventName(): handler},
		DeadLetters: w.letters,
		Unavailable: func(err error) bool { return errors.Is(err, errAway) },
		Consumed:    w.recordConsumed,

		IsolatedFailureTimeout: 2 * time.Second,
		Log:                    log,
		Metrics:                w.metrics,
	})
	return testkit.Run(w.t, consumer)
}

func (w *world) count(_ context.Context, e event.Event) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.seen[e.ID]++
	return nil
}

func (w *world) publish(messages ...*message.Message) {
	w.t.Helper()
	if err := bus.NewPublisher(w.client).Publish(string(event.Audit), messages...); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) wantSeen(messages ...*message.Message) {
	w.t.Helper()
	testkit.Eventually(w.t, 15*time.Second, func() error {
		w.mu.Lock()
		defer w.mu.Unlock()
		for _, m := range messages {
			if w.seen[m.UUID] == 0 {
				return fmt.Errorf("message %s was not handled; %d of %d were", m.UUID, len(w.seen), len(messages))
			}
		}
		return nil
	})
}

func (w *world) wantLetters(n int) []deadletter.Letter {
	w.t.Helper()
	var letters []deadletter.Letter
	testkit.Eventually(w.t, 15*time.Second, func() (err error) {
		letters, err = w.letters.List(w.t.Context(), deadletter.Filter{}, "", 100)
		if err == nil && len(letters) != n {
			err = fmt.Errorf("%d dead letters, want %d", len(letters), n)
		}
		return err
	})
	return letters
}

// wantPaused checks headgate_consumer_paused.
func (w *world) wantPaused(want float64) {
	w.t.Helper()
	families, err := w.metrics.Gather()
	if err != nil {
		w.t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() != "headgate_consumer_paused" {
			continue
		}
		m := f.GetMetric()[0]
		if label := m.GetLabel()[0]; label.GetName() != "topic" || label.GetValue() != string(event.Audit) || m.GetGauge().GetValue() != want {
			w.t.Errorf("headgate_consumer_paused = %v, want %v", m, want)
		}
		return
	}
	w.t.Error("no metric headgate_consumer_paused")
}

func (w *world) wantNothingPending() {
	w.t.Helper()
	testkit.Eventually(w.t, 5*time.Second, func() error {
		p, err := w.client.XPending(w.t.Context(), string(event.Audit), "test").Result()
		if err == nil && p.Count != 0 {
			err = fmt.Errorf("%d entries are pending", p.Count)
		}
		return err
	})
}
