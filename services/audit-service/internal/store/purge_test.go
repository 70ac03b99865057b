package store

import (
	"testing"
	"time"

	"github.com/headgate/headgate/pkg/bus"
	"github.com/headgate/headgate/pkg/deadletter"
	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/pkg/outbox"
	"github.com/headgate/headgate/pkg/reconcile"
	"github.com/headgate/headgate/pkg/testkit"
)

// TestREL73PurgedDeadLetterIsNoGap is REL-73: a dead letter proves that its event was
// consumed, also after it was purged.
func TestREL73PurgedDeadLetterIsNoGap(t *testing.T) {
	t.Parallel()
	db := testkit.Database(t, outbox.Schema(), deadletter.Schema(), reconcile.WatermarksSchema(), Schema())
	now := time.Now()
	deadLetters := deadletter.New(db, outbox.New("audit-service"), func() time.Time { return now })
	e := testkit.NewEvent(t.Context(), "ann", event.UserLoggedIn{SessionID: "s"})
	e.ProducerSeq = 1
	m := testkit.Message(t, e)
	m.Metadata.Set(bus.TopicKey, string(event.Audit))
	if err := deadLetters.Publish("", m); err != nil {
		t.Fatal(err)
	}
	found, err := deadLetters.List(t.Context(), deadletter.Filter{}, "", 10)
	if err != nil || len(found) != 1 {
		t.Fatalf("List() = %+v, %v", found, err)
	}
	if err := deadLetters.Discard(t.Context(), found[0].ID, "a test"); err != nil {
		t.Fatal(err)
	}
	now = now.Add(100 * 24 * time.Hour)
	n, err := deadletter.NewPurge(deadletter.PurgeConfig{Store: deadLetters, Retention: 90 * 24 * time.Hour, AreRecords: true}).Once(t.Context())
	if err != nil || n != 1 {
		t.Errorf("%d dead letters were purged, %v, want 1", n, err)
	}
	var records int
	const query = `SELECT count(*) FROM consumed_events WHERE topic = 'audit-events' AND producer = 'auth-service' AND seq = 1 AND event_id = $1`
	if err := db.QueryRow(t.Context(), query, e.ID).Scan(&records); err != nil || records != 1 {
		t.Errorf("%d records of the event, %v, want 1", records, err)
	}
}
