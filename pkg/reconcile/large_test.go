package reconcile_test

import (
	"fmt"
	"log/slog"
	"testing"
	"time"

	"github.com/headgate/headgate/pkg/testkit"
)

// published fills the outbox with rows as the previous release left them: numbered and
// published in the epoch that had no name.
func (f *fixture) published(n int) {
	f.t.Helper()
	execute(f.t, f.producer, fmt.Sprintf(`
		INSERT INTO outbox (event_id, topic, name, subject, payload, seq, published_at)
		SELECT id, 'audit-events', 'user.logged_in.v1', '', json_build_object('id', id, 'name', 'user.logged_in.v1', 'occurredAt', '2026-01-01T00:00:00Z',
			'producer', 'producer', 'actor', json_build_object('type', 'service'), 'outcome', 'success', 'data', '{}'::json), n, now()
		FROM (SELECT n, gen_random_uuid() AS id FROM generate_series(1, %d) AS n) AS events;
		INSERT INTO outbox_sequences (topic, last_seq) VALUES ('audit-events', %d);
		INSERT INTO outbox_epochs (topic, epoch, first_seq) VALUES ('audit-events', '', 1)`, n, n))
}

// TestLargeGap is REL-55: a gap of 20,000 events heals in bounded parts. The progress
// survives a restart of the producer, the outbox does not grow, other topics get their
// events meanwhile, and nothing is sent twice.
func TestLargeGap(t *testing.T) {
	t.Parallel()
	const missing = 20_000
	f := newFixture(t)
	f.log = slog.New(slog.DiscardHandler) // A line for each event would take longer than the event.
	f.published(missing)
	size := f.outboxSize()
	f.consume(accept)
	stop := f.produce()
	testkit.Eventually(t, func() error {
		if n := f.recorded(); n < missing/10 {
			return fmt.Errorf("%d of %d events are recorded", n, missing)
		}
		return nil
	})
	stop()
	f.produce()
	testkit.Within(t, 4*time.Minute, func() error {
		if n := f.recorded(); n < missing {
			return fmt.Errorf("%d of %d events are recorded", n, missing)
		}
		return nil
	})
	f.eventuallyReports()
	added, err := f.client.XInfoStream(t.Context(), "audit-events").Result()
	if err != nil {
		t.Fatal(err)
	}
	// The batch that the stop interrupted may have been sent twice.
	if n := added.EntriesAdded; n < missing || n > missing+500 {
		t.Errorf("%d entries were added for %d missing events", n, missing)
	}
	if grown := f.outboxSize(); grown > size {
		t.Errorf("the outbox has grown from %d to %d bytes", size, grown)
	}
}

// TestScatteredGap is REL-55: the same for a gap in many parts.
func TestScatteredGap(t *testing.T) {
	t.Parallel()
	const events = 10_000
	f := newFixture(t)
	f.log = slog.New(slog.DiscardHandler) // A line for each event would take longer than the event.
	f.published(events)
	execute(t, f.consumer, `
		INSERT INTO consumed_events (topic, producer, epoch, seq, event_id)
		SELECT 'audit-events', 'producer', '', n, gen_random_uuid() FROM generate_series(2, 10000, 2) AS n`)
	f.consume(accept)
	f.produce()
	testkit.Within(t, 4*time.Minute, func() error {
		if n := f.recorded(); n < events {
			return fmt.Errorf("%d of %d events are recorded", n, events)
		}
		return nil
	})
	if n := f.republished(); n != events/2 {
		t.Errorf("%d events were republished, want %d", n, events/2)
	}
}

func (f *fixture) recorded() (n int) {
	f.t.Helper()
	if err := f.consumer.QueryRow(f.t.Context(), `SELECT count(*) FROM consumed_events`).Scan(&n); err != nil {
		f.t.Fatal(err)
	}
	return n
}

func (f *fixture) outboxSize() (bytes int64) {
	f.t.Helper()
	if err := f.producer.QueryRow(f.t.Context(), `SELECT pg_relation_size('outbox') + pg_indexes_size('outbox')`).Scan(&bytes); err != nil {
		f.t.Fatal(err)
	}
	return bytes
}
