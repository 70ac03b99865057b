package reconcile_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"

	"github.com/headgate/headgate/pkg/bus"
	"github.com/headgate/headgate/pkg/deadletter"
	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/pkg/outbox"
	"github.com/headgate/headgate/pkg/reconcile"
	"github.com/headgate/headgate/pkg/testkit"
)

func TestMain(m *testing.M) { testkit.Main(m) }

const interval = 200 * time.Millisecond

// fixture is both sides of the protocol: a producer and a consumer, on real
// Postgres and Redis, and the stream between them.
type fixture struct {
	t        *testing.T
	client   *redis.Client
	producer *pgxpool.Pool
	consumer *pgxpool.Pool
	box      *outbox.Box
}

func newFixture(t *testing.T) *fixture {
	t.Helper()
	return &fixture{
		t: t, client: testkit.Redis(t), box: outbox.New("producer"),
		producer: testkit.Database(t, outbox.Schema()),
		consumer: testkit.Database(t, outbox.Schema(), deadletter.Schema(), reconcile.WatermarksSchema(), reconcile.RecordsSchema()),
	}
}

func (f *fixture) produce() (stop func()) {
	relay := testkit.Run(f.t, outbox.NewRelay(f.producer, bus.NewPublisher(f.client), testkit.Log(f.t), prometheus.NewRegistry()))
	reconciler := testkit.Run(f.t, reconcile.NewProducer(reconcile.ProducerConfig{
		Name: "producer", Outbox: outbox.NewPublished(f.producer), Redis: f.client, Interval: interval, Log: testkit.Log(f.t), Metrics: prometheus.NewRegistry(),
	}))
	return func() { relay.Stop(); reconciler.Stop() }
}

func (f *fixture) consume(handler bus.Handler) (stop func()) {
	log := testkit.Log(f.t)
	consumer := testkit.Run(f.t, bus.NewConsumer(bus.ConsumerConfig{
		Topic:      event.Audit,
		Subscriber: bus.NewSubscriber(bus.SubscriberConfig{Client: f.client, Group: "consumer", Consumer: "c", Log: log}),
		Rest:       handler, DeadLetters: deadletter.New(f.consumer, outbox.New("consumer"), time.Now),
		Consumed: reconcile.NewRecords(f.consumer, event.Audit).Record, Log: log, Metrics: prometheus.NewRegistry(),
	}))
	reconciler := testkit.Run(f.t, reconcile.NewConsumer(reconcile.ConsumerConfig{
		Database: f.consumer, Redis: f.client, Topic: event.Audit, Group: "consumer", Interval: interval, Log: log, Metrics: prometheus.NewRegistry(),
	}))
	return func() { consumer.Stop(); reconciler.Stop() }
}

func (f *fixture) add(n int) {
	f.t.Helper()
	err := pgx.BeginFunc(f.t.Context(), f.producer, func(tx pgx.Tx) error {
		for range n {
			e := event.New(f.t.Context(), time.Now(), "subject", event.UserLoggedIn{})
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
	testkit.Eventually(f.t, 30*time.Second, func() error {
		var got int
		if err := f.consumer.QueryRow(f.t.Context(), `SELECT count(DISTINCT seq) FROM consumed_events`).Scan(&got); err != nil {
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
	testkit.Eventually(f.t, 20*time.Second, func() error {
		var got int64
		if err := f.consumer.QueryRow(f.t.Context(), `SELECT coalesce(max(published_seq), 0) FROM published_watermarks`).Scan(&got); err != nil {
			return err
		}
		if got < watermark {
			return fmt.Errorf("the consumer's watermark is %d, want %d", got, watermark)
		}
		return nil
	})
	report, err := reconcile.Gaps(f.t.Context(), f.consumer, event.Audit, time.Unix(0, 0))
	if err != nil {
		f.t.Fatal(err)
	}
	return report.Gaps
}

func accept(context.Context, event.Event) error { return nil }

func (f *fixture) wantPublished() {
	f.t.Helper()
	testkit.Eventually(f.t, 10*time.Second, func() error {
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
	if err := f.client.FlushDB(t.Context()).Err(); err != nil {
		t.Fatal(err)
	}
	f.add(5)
	f.consume(accept)
	f.wantRecords(65)
	testkit.Eventually(t, 20*time.Second, func() error {
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
	var again int
	if err := f.producer.QueryRow(t.Context(), `SELECT sum(republished) FROM outbox`).Scan(&again); err != nil || again != 0 {
		t.Errorf("%d events were republished, %v", again, err)
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

// TestGaps prints missing sequence numbers, and hours whose checksums differ.
func TestGaps(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.produce()
	stop := f.consume(accept)
	f.add(10)
	f.wantRecords(10)
	if gaps := f.gaps(10); len(gaps) != 0 {
		t.Fatalf("gaps: %v", gaps)
	}
	stop() // or it would repair what this test breaks
	exec := func(query string, args ...any) {
		t.Helper()
		if _, err := f.consumer.Exec(t.Context(), query, args...); err != nil {
			t.Fatal(err)
		}
	}
	exec(`DELETE FROM consumed_events WHERE seq IN (2, 3, 10)`)
	// An hour that is over, in which the producer published two events.
	exec(`INSERT INTO hourly_checksums VALUES ('audit-events', 'producer', 400000, 2, 12345, 5, true)`)
	var lines []string
	for _, gap := range f.gaps(10) {
		lines = append(lines, gap.String())
	}
	want := "producer: events 2 to 3 are missing (2)\nproducer: event 10 is missing\nproducer: hour from 2015-08-19 16:00 UTC: 0 events recorded, 2 published"
	if got := strings.Join(lines, "\n"); got != want {
		t.Errorf("gaps:\n%s\nwant:\n%s", got, want)
	}
}

// TestHoursThatDiffer: when the checksum of a past hour differs, the consumer
// requests the hour and the producer publishes it again.
func TestHoursThatDiffer(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	stop := f.produce()
	f.consume(accept)
	f.add(3)
	f.wantRecords(3)
	stop()
	// The events now date from two hours ago, and the consumer recorded three others.
	twoHoursAgo := time.Now().Add(-2*time.Hour).Unix() / 3600
	low, _ := reconcile.HourIDs(twoHoursAgo)
	const published = `
		WITH moved AS (
			UPDATE outbox SET event_id = overlay(event_id::text placing $1 from 1 for 13)::uuid, published_at = now() - interval '2 hours'
			RETURNING topic, seq),
		cleared AS (DELETE FROM outbox_hourly_checksums)
		SELECT count(*) FROM moved`
	var n int
	if err := f.producer.QueryRow(t.Context(), published, low[:13]).Scan(&n); err != nil || n != 3 {
		t.Fatal(n, err)
	}
	if _, err := f.producer.Exec(t.Context(), `INSERT INTO outbox_hourly_checksums VALUES ('audit-events', $1, 3, 12345, 3)`, twoHoursAgo); err != nil {
		t.Fatal(err)
	}
	f.produce()
	testkit.Eventually(t, 20*time.Second, func() error {
		var again int
		err := f.producer.QueryRow(t.Context(), `SELECT sum(republished) FROM outbox`).Scan(&again)
		if err == nil && again < 3 {
			err = fmt.Errorf("%d of 3 events were republished", again)
		}
		return err
	})
}
