package reconcile_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/pkg/reconcile"
	"github.com/headgate/headgate/pkg/testkit"
)

// addAt adds events whose ids were made at a time.
func (f *fixture) addAt(at time.Time, n int) {
	f.t.Helper()
	const query = `
		INSERT INTO outbox (event_id, topic, name, subject, payload)
		SELECT id, 'audit-events', 'user.logged_in.v1', '', json_build_object('id', id, 'name', 'user.logged_in.v1', 'occurredAt', '2026-01-01T00:00:00Z',
			'producer', 'producer', 'actor', json_build_object('type', 'service'), 'outcome', 'success', 'data', '{}'::json)
		FROM (SELECT (lpad(to_hex($1 + n), 12, '0') || '70008000' || lpad(n::text, 12, '0'))::uuid AS id FROM generate_series(1, $2::bigint) AS n) AS events`
	if _, err := f.producer.Exec(f.t.Context(), query, at.UnixMilli(), n); err != nil {
		f.t.Fatal(err)
	}
}

// lose removes numbered events from the stream and from the outbox.
func (f *fixture) lose(first, last int) {
	f.t.Helper()
	entries, err := f.client.XRange(f.t.Context(), string(event.Audit), "-", "+").Result()
	if err != nil {
		f.t.Fatal(err)
	}
	for _, entry := range entries[first-1 : last] {
		if err := f.client.XDel(f.t.Context(), string(event.Audit), entry.ID).Err(); err != nil {
			f.t.Fatal(err)
		}
	}
	f.damage(fmt.Sprintf(`DELETE FROM outbox WHERE seq BETWEEN %d AND %d`, first, last))
}

// TestAcceptAcrossHours is REL-54: a range that was accepted as missing explains what each
// of its hours lacks.
func TestAcceptAcrossHours(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.produce()
	f.addAt(time.Now().Add(-2*time.Hour), 10)
	f.wantPublished()
	f.addAt(time.Now().Add(-time.Hour), 20)
	f.wantPublished()
	f.lose(5, 20)
	f.consume(accept)
	f.wantRecords(14)
	f.eventuallyReports("producer/EPOCH:5..20  16 events are missing")
	if err := f.accept(f.report().Gaps[0]); err != nil {
		t.Fatal(err)
	}
	f.eventuallyReports()
	f.add(10)
	f.wantRecords(24)
	f.wantConsumed(40)
	f.eventuallyReports()
}

// TestAcceptedEarlier is REL-54: what was accepted explains no loss in a later hour.
func TestAcceptedEarlier(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.produce()
	f.addAt(time.Now().Add(-3*time.Hour), 10)
	f.wantPublished()
	f.lose(3, 7)
	stop := f.consume(accept)
	f.wantRecords(5)
	f.eventuallyReports("producer/EPOCH:3..7  5 events are missing")
	if err := f.accept(f.report().Gaps[0]); err != nil {
		t.Fatal(err)
	}
	f.eventuallyReports()
	f.addAt(time.Now().Add(-2*time.Hour), 10)
	f.wantRecords(15)
	f.eventuallyReports()
	stop()
	execute(t, f.consumer, `UPDATE consumed_events SET event_id = gen_random_uuid() WHERE seq = 15; UPDATE epoch_checksums SET matched = false`)
	f.damage(`DELETE FROM outbox WHERE seq = 15`)
	f.consume(accept)
	f.wantAsked()
	report := f.report()
	if len(report.Gaps) != 1 || report.Gaps[0].Published != 10 || report.Gaps[0].Recorded != 9 {
		t.Errorf("gaps: %v, want an hour with 9 of 10 events", report.Gaps)
	}
}

// wantAsked waits until the producer had nothing to add to any hour that differs, and
// the consumer has compared the hours again since.
func (f *fixture) wantAsked() {
	f.t.Helper()
	var asked bool
	rounds := map[time.Time]bool{}
	testkit.Eventually(f.t, func() error {
		var unasked int
		var round time.Time
		const query = `
			SELECT (SELECT count(*) FROM epoch_checksums WHERE NOT matched AND asked_at IS NULL), max(reported_at)
			FROM epoch_watermarks`
		if err := f.consumer.QueryRow(f.t.Context(), query).Scan(&unasked, &round); err != nil {
			return err
		}
		if asked = asked || unasked == 0; !asked {
			return fmt.Errorf("the producer was not asked for %d hours", unasked)
		}
		if rounds[round] = true; len(rounds) < 4 {
			return fmt.Errorf("%d rounds since", len(rounds))
		}
		return nil
	})
}

// TestAcceptPart is REL-54: of a range, exactly what is missing is accepted, however many
// parts it has.
func TestAcceptPart(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	execute(t, f.consumer, `
		INSERT INTO consumed_events (topic, producer, epoch, seq, event_id)
		SELECT 'audit-events', 'producer', 'E', n, gen_random_uuid() FROM generate_series(102, 25100, 2) AS n;
		INSERT INTO epoch_watermarks (topic, producer, epoch, first_seq, held_seq, published_seq, end_seq, consumed_seq, reported_at)
		VALUES ('audit-events', 'producer', 'E', 101, 101, 25100, 25100, 100, now())`)
	gap := reconcile.Gap{Producer: "producer", Epoch: "E", Missing: reconcile.SeqRange{First: 1, Last: 25_100}}
	if err := f.accept(gap); err != nil {
		t.Fatal(err)
	}
	if gaps := f.report().Gaps; len(gaps) > 0 {
		t.Errorf("%d gaps are left, such as %v", len(gaps), gaps[0])
	}
	var first, count int64
	if err := f.consumer.QueryRow(t.Context(), `SELECT min(first_seq), sum(last_seq - first_seq + 1) FROM accepted_gaps`).Scan(&first, &count); err != nil {
		t.Fatal(err)
	}
	if first != 101 || count != 12_500 {
		t.Errorf("%d numbers from %d on were accepted, want 12,500 from 101 on", count, first)
	}
	if err := f.accept(gap); !errors.Is(err, reconcile.ErrNotMissing) {
		t.Errorf("accept again: %v", err)
	}
}
