package reconcile_test

import (
	"fmt"
	"testing"

	"github.com/headgate/headgate/pkg/reconcile"
	"github.com/headgate/headgate/pkg/testkit"
)

// wantRecorded waits until the consumer has records of these numbers, and of no others.
func (f *fixture) wantRecorded(first, last int64) {
	f.t.Helper()
	testkit.Eventually(f.t, func() error {
		var n, low, high int64
		const query = `SELECT count(*), coalesce(min(seq), 0), coalesce(max(seq), 0) FROM consumed_events`
		if err := f.consumer.QueryRow(f.t.Context(), query).Scan(&n, &low, &high); err != nil {
			return err
		}
		if low != first || high != last || n != last-first+1 {
			return fmt.Errorf("%d records, %d to %d, want %d to %d", n, low, high, first, last)
		}
		return nil
	})
}

// TestPurgedRecords is REL-88: a purge of records makes no gap, whatever came late, and
// whatever time the clock had.
func TestPurgedRecords(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]string{
		"one came late":       `UPDATE consumed_events SET consumed_at = now() WHERE seq = 5`,
		"the clock was ahead": `UPDATE consumed_events SET consumed_at = now() + interval '1 year' WHERE seq = 5`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFixture(t)
			f.produce()
			stop := f.consume(accept)
			f.add(100)
			f.wantRecords(100)
			f.eventuallyReports()
			f.wantConsumed(100) // A purge, which runs when a consumer starts, deletes no others.
			stop()
			execute(t, f.consumer, `UPDATE consumed_events SET consumed_at = now() - interval '9 days';`+change)
			f.retention = reconcile.RecordRetention
			stop = f.consume(accept)
			f.wantRecorded(5, 100)
			f.eventuallyReports()
			stop()
			execute(t, f.consumer, `UPDATE consumed_events SET consumed_at = consumed_at - interval '9 days'`)
			stop = f.consume(accept)
			testkit.Eventually(t, func() error {
				if n := f.recorded(); n > 0 {
					return fmt.Errorf("%d records are left", n)
				}
				return nil
			})
			f.eventuallyReports()
			stop()
			if n := f.republished(); n != 0 {
				t.Errorf("%d events were republished", n)
			}
		})
	}
}

// TestPurgedByPreviousRelease is REL-88: the previous release purges records by their
// time alone. What it has purged is no gap.
func TestPurgedByPreviousRelease(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	execute(t, f.producer, `
		INSERT INTO outbox_sequences (topic, last_seq) VALUES ('audit-events', 120);
		INSERT INTO outbox_epochs (topic, epoch, first_seq) VALUES ('audit-events', '', 1)`)
	execute(t, f.consumer, `
		INSERT INTO consumed_events (topic, producer, epoch, seq, event_id)
		SELECT 'audit-events', 'producer', '', n, gen_random_uuid() FROM generate_series(1, 120) AS n WHERE n = 5 OR n > 100;
		INSERT INTO epoch_watermarks (topic, producer, epoch, first_seq, held_seq, published_seq, end_seq, consumed_seq, reported_at)
		VALUES ('audit-events', 'producer', '', 1, 0, 120, 120, 120, now())`)
	f.retention = reconcile.RecordRetention
	f.produce()
	f.consume(accept)
	f.eventuallyReports()
}
