package receipt_test

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
	"github.com/headgate/headgate/pkg/receipt"
	"github.com/headgate/headgate/pkg/testkit"
)

func TestMain(m *testing.M) { testkit.Main(m) }

const interval = 200 * time.Millisecond

// path is a producer and a consumer with everything between them.
type path struct {
	t        *testing.T
	client   *redis.Client
	producer *pgxpool.Pool
	consumer *pgxpool.Pool
	box      *outbox.Box
}

func newPath(t *testing.T) *path {
	t.Helper()
	p := &path{
		t: t, client: testkit.Redis(t), box: outbox.New("producer"),
		producer: testkit.Database(t, outbox.Schema()),
		consumer: testkit.Database(t, outbox.Schema(), deadletter.Schema(), receipt.LedgerSchema(), receipt.Schema()),
	}
	return p
}

func (p *path) relay() (stop func()) {
	relay := testkit.Run(p.t, outbox.NewRelay(p.producer, bus.NewPublisher(p.client), testkit.Log(p.t), prometheus.NewRegistry()))
	reconciler := testkit.Run(p.t, outbox.NewReconciler(outbox.ReconcilerConfig{
		Database: p.producer, Redis: p.client, Producer: "producer", Interval: interval, Log: testkit.Log(p.t), Metrics: prometheus.NewRegistry(),
	}))
	return func() { relay.Stop(); reconciler.Stop() }
}

func (p *path) consume(handler bus.Handler) (stop func()) {
	log := testkit.Log(p.t)
	consumer := testkit.Run(p.t, bus.NewConsumer(bus.ConsumerConfig{
		Topic:      event.Audit,
		Subscriber: bus.NewSubscriber(bus.SubscriberConfig{Client: p.client, Group: "consumer", Consumer: "c", Log: log}),
		Rest:       handler, DeadLetters: deadletter.New(p.consumer, outbox.New("consumer"), time.Now),
		Consumed: receipt.NewBook(p.consumer, event.Audit).Settled, Log: log, Metrics: prometheus.NewRegistry(),
	}))
	reconciler := testkit.Run(p.t, receipt.NewReconciler(receipt.ReconcilerConfig{
		Database: p.consumer, Redis: p.client, Topic: event.Audit, Group: "consumer", Interval: interval, Log: log, Metrics: prometheus.NewRegistry(),
	}))
	return func() { consumer.Stop(); reconciler.Stop() }
}

func (p *path) add(n int) {
	p.t.Helper()
	err := pgx.BeginFunc(p.t.Context(), p.producer, func(tx pgx.Tx) error {
		for range n {
			e := event.New(p.t.Context(), time.Now(), "subject", event.UserLoggedIn{})
			if err := p.box.Add(p.t.Context(), tx, e); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		p.t.Fatal(err)
	}
}

func (p *path) wantReceipts(n int) {
	p.t.Helper()
	testkit.Eventually(p.t, 30*time.Second, func() error {
		var got int
		if err := p.consumer.QueryRow(p.t.Context(), `SELECT count(DISTINCT seq) FROM receipts`).Scan(&got); err != nil {
			return err
		}
		if got != n {
			return fmt.Errorf("%d receipts, want %d", got, n)
		}
		return nil
	})
}

// gaps waits until the consumer has heard of head.
func (p *path) gaps(head int64) []receipt.Gap {
	p.t.Helper()
	testkit.Eventually(p.t, 20*time.Second, func() error {
		var got int64
		if err := p.consumer.QueryRow(p.t.Context(), `SELECT coalesce(max(head), 0) FROM ledgers`).Scan(&got); err != nil {
			return err
		}
		if got < head {
			return fmt.Errorf("the consumer knows of %d events, want %d", got, head)
		}
		return nil
	})
	report, err := receipt.Gaps(p.t.Context(), p.consumer, event.Audit, time.Unix(0, 0))
	if err != nil {
		p.t.Fatal(err)
	}
	return report.Gaps
}

func nothing(context.Context, event.Event) error { return nil }

func (p *path) wantPublished() {
	p.t.Helper()
	testkit.Eventually(p.t, 10*time.Second, func() error {
		var left int
		err := p.producer.QueryRow(p.t.Context(), `SELECT count(*) FROM outbox WHERE published_at IS NULL`).Scan(&left)
		if err == nil && left > 0 {
			err = fmt.Errorf("%d rows wait", left)
		}
		return err
	})
}

// TestFlush is REL-04: what Redis lost after it was marked published is
// published again, by itself, and then nothing is missing.
func TestFlush(t *testing.T) {
	t.Parallel()
	p := newPath(t)
	p.relay()
	stop := p.consume(nothing)
	p.add(10)
	p.wantReceipts(10)
	stop()
	p.add(50) // nobody reads
	p.wantPublished()
	if err := p.client.FlushDB(t.Context()).Err(); err != nil {
		t.Fatal(err)
	}
	p.add(5)
	p.consume(nothing)
	p.wantReceipts(65)
	testkit.Eventually(t, 20*time.Second, func() error {
		if gaps := p.gaps(65); len(gaps) != 0 {
			return fmt.Errorf("gaps: %v", gaps)
		}
		return nil
	})
}

// TestEntriesDeletedInTheMiddle is a loss that no restart tells of.
func TestEntriesDeletedInTheMiddle(t *testing.T) {
	t.Parallel()
	p := newPath(t)
	p.relay()
	p.add(20)
	p.wantPublished()
	entries, err := p.client.XRange(t.Context(), string(event.Audit), "-", "+").Result()
	if err != nil || len(entries) != 20 {
		t.Fatalf("%d entries, %v", len(entries), err)
	}
	if err := p.client.XDel(t.Context(), string(event.Audit), entries[3].ID, entries[4].ID, entries[19].ID).Err(); err != nil {
		t.Fatal(err)
	}
	p.consume(nothing)
	p.wantReceipts(20)
}

// TestABacklogIsNoLoss: what is only on its way is not published again.
func TestABacklogIsNoLoss(t *testing.T) {
	t.Parallel()
	p := newPath(t)
	p.relay()
	release := make(chan struct{})
	p.consume(func(context.Context, event.Event) error {
		<-release
		return nil
	})
	p.add(200)
	p.wantPublished()
	if n := len(p.gaps(200)); n == 0 {
		t.Error("no gap although nothing was handled")
	}
	rounds := time.NewTimer(5 * interval)
	<-rounds.C
	close(release)
	p.wantReceipts(200)
	var again int
	if err := p.producer.QueryRow(t.Context(), `SELECT sum(republished) FROM outbox`).Scan(&again); err != nil || again != 0 {
		t.Errorf("%d events were published again, %v", again, err)
	}
}

// TestDeadLettersAreSettled: an operator decides on them, not the reconciler.
func TestDeadLettersAreSettled(t *testing.T) {
	t.Parallel()
	p := newPath(t)
	p.relay()
	p.consume(func(context.Context, event.Event) error { return event.ErrMalformed })
	p.add(3)
	p.wantReceipts(3)
	if gaps := p.gaps(3); len(gaps) != 0 {
		t.Errorf("gaps: %v", gaps)
	}
}

// TestGaps prints what is missing: numbers, and hours that hold something else.
func TestGaps(t *testing.T) {
	t.Parallel()
	p := newPath(t)
	p.relay()
	stop := p.consume(nothing)
	p.add(10)
	p.wantReceipts(10)
	if gaps := p.gaps(10); len(gaps) != 0 {
		t.Fatalf("gaps: %v", gaps)
	}
	stop() // or it would mend what this test breaks
	exec := func(query string, args ...any) {
		t.Helper()
		if _, err := p.consumer.Exec(t.Context(), query, args...); err != nil {
			t.Fatal(err)
		}
	}
	exec(`DELETE FROM receipts WHERE seq IN (2, 3, 10)`)
	// An hour that is over, in which the producer published two events.
	exec(`INSERT INTO ledger_hours VALUES ('audit-events', 'producer', 400000, 2, 12345, 5, true)`)
	var lines []string
	for _, gap := range p.gaps(10) {
		lines = append(lines, gap.String())
	}
	want := "producer: events 2 to 3 are missing (2)\nproducer: event 10 is missing\nproducer: the hour of 2015-08-19 16:00 UTC holds 0 events, 2 were published"
	if got := strings.Join(lines, "\n"); got != want {
		t.Errorf("gaps:\n%s\nwant:\n%s", got, want)
	}
}

// TestHoursThatDiffer: an hour that is over and does not have the producer's
// tally is reported to the producer, who publishes it again.
func TestHoursThatDiffer(t *testing.T) {
	t.Parallel()
	p := newPath(t)
	stop := p.relay()
	p.consume(nothing)
	p.add(3)
	p.wantReceipts(3)
	stop()
	// It all happened two hours ago, and the consumer holds three other events.
	twoHoursAgo := time.Now().Add(-2*time.Hour).Unix() / 3600
	low, _ := event.HourIDs(twoHoursAgo)
	const published = `
		WITH moved AS (
			UPDATE outbox SET event_id = overlay(event_id::text placing $1 from 1 for 13)::uuid, published_at = now() - interval '2 hours'
			RETURNING topic, seq),
		cleared AS (DELETE FROM outbox_tallies)
		SELECT count(*) FROM moved`
	var n int
	if err := p.producer.QueryRow(t.Context(), published, low[:13]).Scan(&n); err != nil || n != 3 {
		t.Fatal(n, err)
	}
	if _, err := p.producer.Exec(t.Context(), `INSERT INTO outbox_tallies VALUES ('audit-events', $1, 3, 12345, 3)`, twoHoursAgo); err != nil {
		t.Fatal(err)
	}
	p.relay()
	testkit.Eventually(t, 20*time.Second, func() error {
		var again int
		err := p.producer.QueryRow(t.Context(), `SELECT sum(republished) FROM outbox`).Scan(&again)
		if err == nil && again < 3 {
			err = fmt.Errorf("%d of 3 events were published again", again)
		}
		return err
	})
}
