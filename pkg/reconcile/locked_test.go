package reconcile_test

import (
	"sync"
	"testing"
	"time"

	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/pkg/postgres"
	"github.com/headgate/headgate/pkg/reconcile"
	"github.com/headgate/headgate/pkg/testkit"
)

// TestRecordLockedRow is REL-78: one locked row among 500 delays the other consumed-event
// records by about a second at most.
func TestRecordLockedRow(t *testing.T) {
	t.Parallel()
	db := testkit.Database(t, reconcile.WatermarksSchema(), reconcile.RecordsSchema())
	records := reconcile.NewRecords(db, event.User)
	const locked = 250
	seq := int64(0)
	record := func(events []event.Event) (took time.Duration, errs []error) {
		errs = make([]error, len(events))
		start := time.Now()
		var running sync.WaitGroup
		for i, e := range events {
			running.Go(func() { errs[i] = records.Record(t.Context(), e) })
		}
		running.Wait()
		return time.Since(start), errs
	}
	newEvents := func() []event.Event {
		events := make([]event.Event, 500)
		for i := range events {
			seq++
			events[i] = testkit.NewEvent(t.Context(), "subject", event.UserLoggedIn{})
			events[i].ProducerSeq = seq
		}
		return events
	}
	without, _ := record(newEvents())
	events := newEvents()
	tx, err := db.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tx.Rollback(t.Context()) }()
	const insert = `INSERT INTO consumed_events (topic, producer, seq, event_id) VALUES ($1, $2, $3, $4)`
	e := events[locked]
	if _, err := tx.Exec(t.Context(), insert, event.User, e.Producer, e.ProducerSeq, e.ID); err != nil {
		t.Fatal(err)
	}
	took, errs := record(events)
	if took > 20*time.Second+5*without {
		t.Errorf("%d records took %s, and %s without a locked row", len(events), took, without)
	}
	for i, err := range errs {
		if (i == locked) != postgres.Contended(err) || i != locked && err != nil {
			t.Errorf("Record(%d) = %v", i, err)
		}
	}
}
