package reconcile_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/pkg/reconcile"
	"github.com/headgate/headgate/pkg/testkit"
)

// epochOfProducer returns the producer's present epoch.
func (f *fixture) epochOfProducer() (epoch string) {
	f.t.Helper()
	if err := f.producer.QueryRow(f.t.Context(), `SELECT epoch FROM outbox_epochs WHERE last_seq IS NULL`).Scan(&epoch); err != nil {
		f.t.Fatal(err)
	}
	return epoch
}

func (f *fixture) accept(gap reconcile.Gap) error {
	f.t.Helper()
	return pgx.BeginFunc(f.t.Context(), f.consumer, func(tx pgx.Tx) error {
		return reconcile.Accept(f.t.Context(), tx, reconcile.Acceptance{Topic: event.Audit, Gap: gap, Reason: "because", By: "me"})
	})
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
	epoch := f.epochOfProducer()
	execute(t, f.consumer, `UPDATE epoch_watermarks SET consumed_seq = 10`)
	execute(t, f.consumer, `DELETE FROM consumed_events WHERE seq IN (2, 3, 10)`)
	execute(t, f.consumer, `DELETE FROM epoch_checksums`)
	execute(t, f.consumer, fmt.Sprintf(`INSERT INTO epoch_checksums VALUES ('audit-events', 'producer', '%s', 400000, 2, 12345, 5, true)`, epoch))
	var lines []string
	for _, gap := range f.report().Gaps {
		lines = append(lines, gap.String())
		parsed, err := reconcile.ParseGap(gap.ID())
		if err != nil || parsed.ID() != gap.ID() {
			t.Errorf("ParseGap(%s) = %v, %v", gap.ID(), parsed, err)
		}
	}
	name := "producer/" + epoch
	want := name + ":2..3  2 events are missing\n" + name + ":10  1 event is missing\n" + name + "@2015-08-19T16  0 events recorded, 2 published"
	if got := strings.Join(lines, "\n"); got != want {
		t.Errorf("gaps:\n%s\nwant:\n%s", got, want)
	}
}

// TestGapsInDoubt is REL-54: gaps says that it cannot know when no watermark was posted,
// when none is new, and when the database may be an older copy.
func TestGapsInDoubt(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	if doubts := f.report().Doubts; len(doubts) != 2 {
		t.Errorf("without a watermark: %q", doubts)
	}
	stopProducer := f.produce()
	stop := f.consume(accept)
	f.add(3)
	f.wantRecords(3)
	f.eventuallyReports()
	stopProducer()
	stop()
	for _, age := range []string{"1 hour", "-1 hour"} {
		execute(t, f.consumer, fmt.Sprintf(`UPDATE epoch_watermarks SET changed_at = now() - interval '%s'`, age))
		if doubts := f.report().Doubts; len(doubts) != 1 || !strings.Contains(doubts[0], "no new watermark for 1h0m0s") {
			t.Errorf("with a watermark that is %s old: %q", age, doubts)
		}
	}
	execute(t, f.consumer, `UPDATE epoch_watermarks SET changed_at = now() - interval '1 second'; UPDATE database_checks SET checked_at = now()`)
	if doubts := f.report().Doubts; len(doubts) != 1 || !strings.Contains(doubts[0], "no new watermark since") {
		t.Errorf("with a watermark from before the database was checked: %q", doubts)
	}
	execute(t, f.consumer, `UPDATE epoch_watermarks SET changed_at = now(); UPDATE database_checks SET incarnation = 'other'`)
	if doubts := f.report().Doubts; len(doubts) != 1 || !strings.Contains(doubts[0], "not compared") {
		t.Errorf("in another database: %q", doubts)
	}
}

// TestClockAhead is REL-52: rows that were published while the producer's clock was ahead
// are republished like any other.
func TestClockAhead(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.produce()
	f.add(20)
	f.wantPublished()
	execute(t, f.producer, `UPDATE outbox SET published_at = now() + interval '3 days'`)
	f.flush()
	f.consume(accept)
	f.wantRecords(20)
	f.eventuallyReports()
}

// TestSurplus is REL-53: a consumer that has more records than the producer published is
// not sent anything. The surplus is reported.
func TestSurplus(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.produce()
	f.consume(accept)
	f.add(10)
	f.wantRecords(10)
	f.eventuallyReports()
	f.damage(`DELETE FROM outbox_epoch_checksums`,
		`INSERT INTO outbox_epoch_checksums
		SELECT topic, '`+f.epochOfProducer()+`', `+reconcile.HourSQL("min(event_id::text)::uuid")+`, count(*), sum(`+reconcile.HashSQL("event_id")+`), 10
		FROM outbox WHERE seq <> 4 GROUP BY topic`)
	testkit.Eventually(t, func() error {
		if n := f.sum("headgate_events_surplus"); n != 1 {
			return fmt.Errorf("headgate_events_surplus = %v", n)
		}
		return nil
	})
	report := f.report()
	if len(report.Gaps) != 1 || !strings.HasSuffix(report.Gaps[0].String(), "surplus: 10 events recorded, 9 published") {
		t.Fatalf("gaps: %v", report.Gaps)
	}
	if n := f.republished(); n != 0 {
		t.Errorf("%d events were republished", n)
	}
	if err := f.accept(report.Gaps[0]); err != nil {
		t.Fatal(err)
	}
	f.eventuallyReports()
}

// damage executes statements in the producer's database.
func (f *fixture) damage(statements ...string) {
	f.t.Helper()
	execute(f.t, f.producer, strings.Join(statements, ";"))
}

// TestHoursThatDiffer is REL-53: when no number is missing and the checksum of an hour
// differs, only the events that the consumer does not have are republished.
func TestHoursThatDiffer(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.produce()
	stop := f.consume(accept)
	f.add(10)
	f.wantRecords(10)
	f.eventuallyReports()
	stop()
	// As if a number had been given twice: another event has the record of number 4.
	execute(t, f.consumer, `UPDATE consumed_events SET event_id = gen_random_uuid() WHERE seq = 4; UPDATE epoch_checksums SET matched = false`)
	f.consume(accept)
	f.wantRecords(11)
	testkit.Eventually(t, func() error { // The producer counts after it has published.
		if n := f.republished(); n != 1 {
			return fmt.Errorf("%d events were republished, want 1", n)
		}
		return nil
	})
}

// TestMissingForGood is REL-54: an event that its producer has lost stays reported until
// an operator accepts it. Until then the producer keeps what came after it, and asks of
// the consumer do not flood.
func TestMissingForGood(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.produce()
	f.add(10)
	f.wantPublished()
	entries, err := f.client.XRange(t.Context(), string(event.Audit), "-", "+").Result()
	if err != nil {
		t.Fatal(err)
	}
	if err := f.client.XDel(t.Context(), string(event.Audit), entries[4].ID).Err(); err != nil {
		t.Fatal(err)
	}
	execute(t, f.producer, `DELETE FROM outbox WHERE seq = 5`)
	f.consume(accept)
	f.wantRecords(9)
	f.eventuallyReports("producer/EPOCH:5  1 event is missing")
	gap := f.report().Gaps[0]
	if n := f.republished(); n != 0 {
		t.Errorf("%d events were republished", n)
	}
	wrong := gap
	wrong.Missing = reconcile.SeqRange{First: 6, Last: 7}
	if err := f.accept(wrong); !errors.Is(err, reconcile.ErrNotMissing) {
		t.Errorf("accept what is not missing: %v", err)
	}
	wrong.Missing = reconcile.SeqRange{First: 5, Last: 11}
	if err := f.accept(wrong); !errors.Is(err, reconcile.ErrNotMissing) {
		t.Errorf("accept what was not published: %v", err)
	}
	if err := f.accept(gap); err != nil {
		t.Fatal(err)
	}
	f.wantConsumed(10)
	// The hour lacks the event as well. Once the producer has nothing to add, that is
	// part of what was accepted.
	f.eventuallyReports()
}

// TestNewConsumer is REL-54: a consumer that is new when the first events were purged
// starts at what the producer still has.
func TestNewConsumer(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.produce()
	f.add(10)
	f.wantPublished()
	f.flush()
	execute(t, f.producer, `DELETE FROM outbox WHERE seq <= 6; DELETE FROM outbox_epoch_checksums`)
	f.consume(accept)
	f.wantRecords(4)
	f.eventuallyReports()
	f.wantConsumed(10)
}

// TestPreviousProducer: a watermark of the release without epochs is understood, and does
// not replace that of an instance that knows them.
func TestPreviousProducer(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.consume(accept)
	post := func(seq int) {
		const previous = `{"producer":"producer","topic":"audit-events","at":%q,"seq":%d,"hours":[]}`
		f.post(fmt.Sprintf(previous, time.Now().UTC().Format(time.RFC3339Nano), seq))
	}
	testkit.Eventually(t, func() error {
		post(3)
		request, err := f.request()
		if err != nil {
			return err
		}
		if len(request.Ranges) != 1 || request.Ranges[0].Last != 3 || request.CaughtUp.IsZero() {
			return fmt.Errorf("request: %+v", request)
		}
		return nil
	})
	f.post(`{"producer":"producer","topic":"audit-events","at":"2026-01-01T00:00:01Z","first":1,"seq":2,"epoch":"E","hours":[],"answers":{"consumer":7}}`)
	testkit.Eventually(t, func() error {
		request, err := f.request()
		if err != nil {
			return err
		}
		if len(request.Ranges) != 1 || request.Ranges[0].Epoch != "E" || request.Answers != 7 || !request.CaughtUp.IsZero() {
			return fmt.Errorf("request: %+v", request)
		}
		return nil
	})
	post(9)
	f.eventuallyReports("producer:1..3  3 events are missing; the producer does not have it any more", "producer/EPOCH:1..2  2 events are missing")
}

// request returns the consumer's request to the producer.
func (f *fixture) request() (request reconcile.RepublishRequest, err error) {
	f.t.Helper()
	data, err := f.client.HGet(f.t.Context(), "republish:requested:audit-events:producer", "consumer").Bytes()
	if err != nil {
		return request, err
	}
	return request, json.Unmarshal(data, &request)
}

// TestGapInWords: what an operator reads about one event is in the singular.
func TestGapInWords(t *testing.T) {
	t.Parallel()
	for want, gap := range map[string]reconcile.Gap{
		"  1 event recorded, 2 published":           {Published: 2, Recorded: 1},
		"  surplus: 1 event recorded, 0 published":  {Recorded: 1},
		"  surplus: 2 events recorded, 1 published": {Published: 1, Recorded: 2},
	} {
		if got := gap.String(); !strings.HasSuffix(got, want) {
			t.Errorf("%q does not end with %q", got, want)
		}
	}
}
