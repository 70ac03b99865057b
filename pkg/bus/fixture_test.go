package bus_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"

	"github.com/headgate/headgate/pkg/bus"
	"github.com/headgate/headgate/pkg/deadletter"
	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/pkg/outbox"
	"github.com/headgate/headgate/pkg/postgres"
	"github.com/headgate/headgate/pkg/testkit"
)

func TestMain(m *testing.M) { testkit.Main(m) }

// newMessage returns a message as the outbox publishes it.
func newMessage(t *testing.T, p event.Payload) *message.Message {
	t.Helper()
	return testkit.Message(t, testkit.NewEvent(t.Context(), "subject", p))
}

// fixture is a stream with one consumer and its dead letters.
type fixture struct {
	t           *testing.T
	client      redis.UniversalClient
	db          *postgres.Pool
	deadLetters *deadletter.Store
	metrics     *prometheus.Registry // of the consumer that was started last
	unavailable atomic.Bool          // what the probe says
	isolated    time.Duration        // IsolatedFailureTimeout
	due         []message.Subscriber
	check       func(prometheus.Registerer) *bus.Authenticity // nil: nothing is checked

	mu       sync.Mutex
	seen     map[string]int
	consumed map[string]int
}

var errUnavailable = errors.New("dependency unavailable")

func (f *fixture) probe(context.Context) error {
	if f.unavailable.Load() {
		return errUnavailable
	}
	return nil
}

func (f *fixture) recordConsumed(_ context.Context, e event.Event) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.consumed[e.ID]++
	return nil
}

func newFixture(t *testing.T, client redis.UniversalClient) *fixture {
	t.Helper()
	db := testkit.Database(t, outbox.Schema(), deadletter.Schema())
	return &fixture{t: t, client: client, db: db, deadLetters: deadletter.New(db, outbox.New("test"), time.Now), isolated: 2 * time.Second, seen: map[string]int{}, consumed: map[string]int{}}
}

// consume runs a consumer until the test ends or it is stopped.
func (f *fixture) consume(name string, handler bus.Handler, changes ...func(*bus.SubscriberConfig)) testkit.Running {
	f.t.Helper()
	if handler == nil {
		handler = f.count
	}
	log := testkit.Log(f.t)
	stream := bus.SubscriberConfig{Client: f.client, Group: "test", Consumer: name, MaxIdle: 600 * time.Millisecond, Log: log}
	for _, change := range changes {
		change(&stream)
	}
	f.metrics = prometheus.NewRegistry()
	stream.Metrics = f.metrics
	var check *bus.Authenticity
	if f.check != nil {
		check = f.check(f.metrics)
	}
	consumer := bus.NewConsumer(bus.ConsumerConfig{
		Topic:        event.Audit,
		Subscriber:   bus.NewSubscriber(stream),
		Authenticity: check,
		Handlers:     map[string]bus.Handler{event.UserLoggedIn{}.EventName(): handler},
		DeadLetters:  f.deadLetters,
		Unavailable:  func(err error) bool { return errors.Is(err, errUnavailable) },
		Probe:        f.probe,
		Contended:    postgres.Contended,
		Consumed:     f.recordConsumed,

		Due: f.due,

		IsolatedFailureTimeout: f.isolated,
		Log:                    log,
		Metrics:                f.metrics,
	})
	return testkit.Run(f.t, consumer)
}

func (f *fixture) count(_ context.Context, e event.Event) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.seen[e.ID]++
	return nil
}

func (f *fixture) publish(messages ...*message.Message) {
	f.t.Helper()
	if err := bus.NewPublisher(f.client).Publish(string(event.Audit), messages...); err != nil {
		f.t.Fatal(err)
	}
}

func (f *fixture) wantSeen(messages ...*message.Message) {
	f.t.Helper()
	testkit.Eventually(f.t, func() error {
		f.mu.Lock()
		defer f.mu.Unlock()
		for _, m := range messages {
			if f.seen[m.UUID] == 0 {
				return fmt.Errorf("message %s was not handled; %d of %d were", m.UUID, len(f.seen), len(messages))
			}
		}
		return nil
	})
}

func (f *fixture) wantDeadLetters(n int) []deadletter.DeadLetter {
	f.t.Helper()
	var deadLetters []deadletter.DeadLetter
	testkit.Eventually(f.t, func() (err error) {
		deadLetters, err = f.deadLetters.List(f.t.Context(), deadletter.Filter{}, "", 100)
		if err == nil && len(deadLetters) != n {
			err = fmt.Errorf("%d dead letters, want %d", len(deadLetters), n)
		}
		return err
	})
	return deadLetters
}

// wantPaused checks headgate_consumer_paused.
func (f *fixture) wantPaused(want float64) {
	f.t.Helper()
	families, err := f.metrics.Gather()
	if err != nil {
		f.t.Fatal(err)
	}
	for _, family := range families {
		if family.GetName() != "headgate_consumer_paused" {
			continue
		}
		m := family.GetMetric()[0]
		if label := m.GetLabel()[0]; label.GetName() != "topic" || label.GetValue() != string(event.Audit) || m.GetGauge().GetValue() != want {
			f.t.Errorf("headgate_consumer_paused = %v, want %v", m, want)
		}
		return
	}
	f.t.Error("no metric headgate_consumer_paused")
}

func (f *fixture) wantNothingPending() {
	f.t.Helper()
	testkit.Eventually(f.t, func() error {
		p, err := f.client.XPending(f.t.Context(), string(event.Audit), "test").Result()
		if err == nil && p.Count != 0 {
			err = fmt.Errorf("%d entries are pending", p.Count)
		}
		return err
	})
}

// waiting returns headgate_consumer_wait_list.
func (f *fixture) waiting() int {
	f.t.Helper()
	return int(gauges(f.t, f.metrics)["headgate_consumer_wait_list{test,audit-events}"])
}
