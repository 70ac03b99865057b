package reconcile_test

import (
	"context"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"

	"github.com/headgate/headgate/pkg/bus"
	"github.com/headgate/headgate/pkg/deadletter"
	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/pkg/outbox"
	"github.com/headgate/headgate/pkg/postgres"
	"github.com/headgate/headgate/pkg/reconcile"
	"github.com/headgate/headgate/pkg/testkit"
)

func TestMain(m *testing.M) { testkit.Main(m) }

const interval = 200 * time.Millisecond

// fixture is both sides of the protocol: a producer and a consumer, on real
// Postgres and Redis, and the stream between them.
type fixture struct {
	t        *testing.T
	log      *slog.Logger
	client   *redis.Client
	producer *postgres.Pool
	consumer *postgres.Pool
	box      *outbox.Box
	// restored is called when the consumer's database was restored.
	restored         func(context.Context, reconcile.Handled) error
	retention        time.Duration // of records; unlimited if zero
	producers        []string      // of the topic
	producersTimeout time.Duration // with producers that are down; a minute if zero
	registries       []*prometheus.Registry
}

func newFixture(t *testing.T) *fixture {
	t.Helper()
	return &fixture{
		t: t, log: testkit.Log(t), client: testkit.Redis(t), box: outbox.New("producer"), producers: []string{"producer"},
		producer: testkit.Database(t, outbox.Schema()),
		consumer: testkit.Database(t, (*fixture)(nil).schemas()...),
	}
}

// schemas are those of the consumer.
func (*fixture) schemas() []postgres.Schema {
	return []postgres.Schema{outbox.Schema(), deadletter.Schema(), reconcile.WatermarksSchema(), reconcile.RecordsSchema()}
}

func (f *fixture) produce() (stop func()) { return f.produceAs("producer") }

// relay starts a producer that posts no watermarks.
func (f *fixture) relay() (stop func()) {
	epochs := outbox.NewEpochs(f.producer, f.client, "producer", f.log, prometheus.NewRegistry())
	return testkit.Run(f.t, outbox.NewRelay(f.producer, bus.NewPublisher(f.client), epochs, f.log, prometheus.NewRegistry())).Stop
}

func (f *fixture) produceAs(name string) (stop func()) {
	log, publisher := f.log, bus.NewPublisher(f.client)
	epochs := outbox.NewEpochs(f.producer, f.client, name, log, f.produced())
	relay := testkit.Run(f.t, outbox.NewRelay(f.producer, publisher, epochs, log, prometheus.NewRegistry()))
	reconciler := testkit.Run(f.t, reconcile.NewProducer(reconcile.ProducerConfig{
		Name: name, Outbox: outbox.NewPublished(f.producer, publisher, epochs), Redis: f.client,
		Interval: interval, Log: log, Metrics: f.produced(),
	}))
	return func() { relay.Stop(); reconciler.Stop() }
}

// produced returns a new registry for a producer's metrics.
func (f *fixture) produced() *prometheus.Registry {
	registry := prometheus.NewRegistry()
	f.registries = append(f.registries, registry)
	return registry
}

// republished returns how many events the producers have republished so far.
func (f *fixture) republished() int {
	f.t.Helper()
	return int(f.sum("headgate_outbox_republished_total"))
}

// sum returns the sum of a metric over all registries.
func (f *fixture) sum(name string) (sum float64) {
	f.t.Helper()
	for _, registry := range f.registries {
		families, err := registry.Gather()
		if err != nil {
			f.t.Fatal(err)
		}
		for _, family := range families {
			if family.GetName() != name {
				continue
			}
			for _, m := range family.GetMetric() {
				sum += m.GetCounter().GetValue() + m.GetGauge().GetValue()
			}
		}
	}
	return sum
}

func (f *fixture) consume(handler bus.Handler) (stop func()) {
	consumer, reconciler := f.handle(handler), f.reconcile()
	return func() { consumer.Stop(); reconciler.Stop() }
}

// handle starts a consumer that posts nothing and requests nothing.
func (f *fixture) handle(handler bus.Handler) testkit.Running {
	return testkit.Run(f.t, bus.NewConsumer(bus.ConsumerConfig{
		Topic:      event.Audit,
		Subscriber: bus.NewSubscriber(bus.SubscriberConfig{Client: f.client, Group: "consumer", Consumer: "c", Window: 1000, Log: f.log}),
		Rest:       handler, DeadLetters: deadletter.New(f.consumer, outbox.New("consumer"), time.Now),
		Consumed: reconcile.NewRecords(f.consumer, event.Audit).Record, Log: f.log, Metrics: prometheus.NewRegistry(),
	}))
}

func (f *fixture) reconcile() testkit.Running {
	return testkit.Run(f.t, reconcile.NewConsumer(reconcile.ConsumerConfig{
		Database: f.consumer, Redis: f.client, Topic: event.Audit, Group: "consumer", Producers: f.producers, Interval: interval,
		Retention: f.retention, ProducersTimeout: f.producersTimeout, Restored: f.restored, Log: f.log, Metrics: f.produced(),
	}))
}

// flush empties Redis.
func (f *fixture) flush() {
	f.t.Helper()
	if err := f.client.FlushDB(f.t.Context()).Err(); err != nil {
		f.t.Fatal(err)
	}
}

func (f *fixture) add(n int) {
	f.t.Helper()
	err := pgx.BeginFunc(f.t.Context(), f.producer, func(tx pgx.Tx) error {
		for range n {
			e := event.New(f.t.Context(), time.Now(), "subject", event.SessionRefreshed{})
			if err := f.box.Add(f.t.Context(), tx, e); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		f.t.Fatal(err)
	}
}

func (f *fixture) wantRecords(n int) {
	f.t.Helper()
	testkit.Eventually(f.t, func() error {
		var got int
		if err := f.consumer.QueryRow(f.t.Context(), `SELECT count(DISTINCT event_id) FROM consumed_events`).Scan(&got); err != nil {
			return err
		}
		if got != n {
			return fmt.Errorf("%d records, want %d", got, n)
		}
		return nil
	})
}

// gaps waits until the consumer knows the watermark.
func (f *fixture) gaps(watermark int64) []reconcile.Gap {
	f.t.Helper()
	testkit.Eventually(f.t, func() error {
		var got int64
		if err := f.consumer.QueryRow(f.t.Context(), `SELECT coalesce(max(published_seq), 0) FROM epoch_watermarks`).Scan(&got); err != nil {
			return err
		}
		if got < watermark {
			return fmt.Errorf("the consumer's watermark is %d, want %d", got, watermark)
		}
		return nil
	})
	report, err := reconcile.Gaps(f.t.Context(), f.consumer, event.Audit, f.producers, time.Unix(0, 0))
	if err != nil {
		f.t.Fatal(err)
	}
	return report.Gaps
}

func accept(context.Context, event.Event) error { return nil }

func (f *fixture) wantPublished() {
	f.t.Helper()
	testkit.Eventually(f.t, func() error {
		var left int
		err := f.producer.QueryRow(f.t.Context(), `SELECT count(*) FROM outbox WHERE published_at IS NULL`).Scan(&left)
		if err == nil && left > 0 {
			err = fmt.Errorf("%d rows are unpublished", left)
		}
		return err
	})
}

// TestREL04Flush is REL-04: events that Redis lost after the outbox had marked them published are
// published again, without an operator, and then nothing is missing.
func TestREL04Flush(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.produce()
	stop := f.consume(accept)
	f.add(10)
	f.wantRecords(10)
	stop()
	f.add(50) // without a consumer
	f.wantPublished()
	f.flush()
	f.add(5)
	f.consume(accept)
	f.wantRecords(65)
	testkit.Eventually(t, func() error {
		if gaps := f.gaps(65); len(gaps) != 0 {
			return fmt.Errorf("gaps: %v", gaps)
		}
		return nil
	})
}

// TestEntriesDeletedInTheMiddle is a loss without a restart of Redis.
func TestEntriesDeletedInTheMiddle(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.produce()
	f.add(20)
	f.wantPublished()
	entries, err := f.client.XRange(t.Context(), string(event.Audit), "-", "+").Result()
	if err != nil || len(entries) != 20 {
		t.Fatalf("%d entries, %v", len(entries), err)
	}
	if err := f.client.XDel(t.Context(), string(event.Audit), entries[3].ID, entries[4].ID, entries[19].ID).Err(); err != nil {
		t.Fatal(err)
	}
	f.consume(accept)
	f.wantRecords(20)
}

// TestABacklogIsNotLost: events that are still in the stream are not republished.
func TestABacklogIsNotLost(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.produce()
	release := make(chan struct{})
	f.consume(func(context.Context, event.Event) error {
		<-release
		return nil
	})
	f.add(200)
	f.wantPublished()
	if n := len(f.gaps(200)); n == 0 {
		t.Error("no gap although no event was handled")
	}
	rounds := time.NewTimer(5 * interval)
	<-rounds.C
	close(release)
	f.wantRecords(200)
	if again := f.republished(); again != 0 {
		t.Errorf("%d events were republished", again)
	}
}

// TestDeadLettersAreRecorded: an operator decides on a dead letter, so its event is
// not republished.
func TestDeadLettersAreRecorded(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.produce()
	f.consume(func(context.Context, event.Event) error { return event.ErrMalformed })
	f.add(3)
	f.wantRecords(3)
	if gaps := f.gaps(3); len(gaps) != 0 {
		t.Errorf("gaps: %v", gaps)
	}
}
