package bus_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"

	"github.com/headgate/headgate/pkg/bus"
	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/pkg/testkit"
)

func newHints(t *testing.T, client redis.UniversalClient) (*bus.Hints, *prometheus.Registry) {
	t.Helper()
	metrics := prometheus.NewRegistry()
	return bus.NewHints(bus.HintsConfig{
		Client: client, Producer: "audit-service", Signer: testkit.Signer(t, "audit-service"), Log: testkit.Log(t), Metrics: metrics,
	}), metrics
}

// followHints returns the hints that a follower accepts.
func followHints(t *testing.T, client redis.UniversalClient) <-chan event.Event {
	t.Helper()
	seen := make(chan event.Event, 1000)
	check := testkit.Authenticity(t, testkit.Log(t), prometheus.NewRegistry())
	testkit.Run(t, bus.NewFollower(client, event.Realtime, func(e event.Event) { seen <- e }, check, testkit.Log(t)))
	return seen
}

// TestHints: hints are signed, occurrences share one a second, and the last ones are published
// when the service stops.
func TestHints(t *testing.T) {
	t.Parallel()
	client := testkit.Redis(t)
	seen := followHints(t, client)
	h, _ := newHints(t, client)
	running := testkit.Run(t, h)
	origin := event.WithOrigin(t.Context(), event.Origin{IP: "192.0.2.1", UserAgent: "agent", RequestID: "r"})
	h.Send(origin, time.Now(), "ann", event.AuditAppended{Count: 1})
	e := <-seen
	if e.Subject != "ann" || e.Producer != "audit-service" || e.RequestID != "r" || e.IP != "" || e.UserAgent != "" || e.ProducerSeq != 0 {
		t.Errorf("hint = %+v", e)
	}
	for range 500 {
		h.Count(event.AuditAppended{}, 2)
	}
	counted, hints := 0, 0
	for counted < 1000 {
		p, err := event.Decode[event.AuditAppended](<-seen)
		if err != nil || p.Since.IsZero() {
			t.Fatalf("%+v, %v", p, err)
		}
		counted += p.Count
		hints++
	}
	if counted != 1000 || hints > 3 {
		t.Errorf("%d hints about %d occurrences", hints, counted)
	}
	h.Count(event.AuditAppended{}, 7)
	running.Stop()
	if p, err := event.Decode[event.AuditAppended](<-seen); err != nil || p.Count != 7 {
		t.Errorf("the last hint = %+v, %v", p, err)
	}
	if n := client.XLen(t.Context(), string(event.Realtime)).Val(); n > 10 {
		t.Errorf("%d entries", n)
	}
}

// TestHintsAreDropped: without Redis nobody waits, and the stream stays short.
func TestHintsAreDropped(t *testing.T) {
	t.Parallel()
	nowhere := testkit.OpenRedis(t, "redis://127.0.0.1:1/0", time.Second)
	h, metrics := newHints(t, nowhere)
	began := time.Now()
	for range 5000 { // It does not even run.
		h.Send(t.Context(), time.Now(), "ann", event.AuditAppended{})
	}
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("5000 hints took %s", took)
	}
	testkit.Run(t, h)
	testkit.Eventually(t, func() error {
		families, err := metrics.Gather()
		if err != nil {
			return err
		}
		if len(families) == 0 || len(families[0].GetMetric()) == 0 {
			return errors.New("none were dropped")
		}
		if n := families[0].GetMetric()[0].GetCounter().GetValue(); n != 5000 {
			return fmt.Errorf("%v hints were dropped", n)
		}
		return nil
	})

	client := testkit.Redis(t)
	values := map[string]any{"junk": "x"}
	pipe := client.Pipeline()
	for range 25_000 {
		pipe.XAdd(t.Context(), &redis.XAddArgs{Stream: string(event.Realtime), Values: values})
	}
	if _, err := pipe.Exec(t.Context()); err != nil {
		t.Fatal(err)
	}
	other, _ := newHints(t, client)
	testkit.Run(t, other)
	other.Send(t.Context(), time.Now(), "", event.AuditAppended{})
	testkit.Eventually(t, func() error {
		if n := client.XLen(t.Context(), string(event.Realtime)).Val(); n > 20_500 {
			return fmt.Errorf("%d entries", n)
		}
		return nil
	})
}

// TestHintsAreNoEvents: services do not reconcile the stream of hints.
func TestHintsAreNoEvents(t *testing.T) {
	t.Parallel()
	for _, topic := range event.Topics() {
		if topic == event.Realtime {
			t.Errorf("%s is reconciled", topic)
		}
	}
	for _, hint := range []event.Payload{event.AuditAppended{}, event.DeadLetterAdded{}} {
		if _, ok := hint.(event.Countable); !ok || len(hint.EventTopics()) != 1 || hint.EventTopics()[0] != event.Realtime {
			t.Errorf("%s goes to %v", hint.EventName(), hint.EventTopics())
		}
	}
	e := testkit.NewEvent(t.Context(), "ann", event.EmailSent{})
	if err := event.CheckProducer(event.Realtime, e); err != nil {
		t.Error(err)
	}
	e.Producer = "auth-service"
	if err := event.CheckProducer(event.Realtime, e); !errors.Is(err, event.ErrWrongProducer) {
		t.Errorf("auth-service may say that a mail was sent: %v", err)
	}
}
