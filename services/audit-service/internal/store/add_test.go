package store

import (
	"slices"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/headgate/headgate/pkg/deadletter"
	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/pkg/outbox"
	"github.com/headgate/headgate/pkg/testkit"
)

func TestMain(m *testing.M) { testkit.Main(m) }

func newStore(t testing.TB) *Store {
	t.Helper()
	return New(testkit.Database(t, outbox.Schema(), deadletter.Schema(), Schema()))
}

// newEvent returns an event with a different value in each field.
func newEvent() event.Event {
	return event.Event{
		ID: uuid.Must(uuid.NewV7()).String(), Name: "user.logged_in.v3", OccurredAt: time.Date(2026, 1, 31, 12, 0, 0, 0, time.UTC),
		Producer: "producer", ProducerSeq: 7, Subject: "subject", Actor: event.Actor{Type: "actor type", ID: "actor id"}, Outcome: "outcome",
		IP: "ip", UserAgent: "user agent", RequestID: "request id", CorrelationID: "correlation id", CausationID: "causation id",
		Data: []byte(`{"sessionId": "s"}`),
	}
}

// TestColumns: each field of an event is in the column of its name.
func TestColumns(t *testing.T) {
	t.Parallel()
	s, e := newStore(t), newEvent()
	if err := s.insert(t.Context(), []event.Event{newEvent(), e, newEvent()}); err != nil {
		t.Fatal(err)
	}
	rows, err := s.db.Query(t.Context(), `SELECT * FROM events WHERE id = $1`, e.ID)
	if err != nil {
		t.Fatal(err)
	}
	got, err := pgx.CollectExactlyOneRow(rows, pgx.RowToMap)
	if err != nil {
		t.Fatal(err)
	}
	for column, want := range map[string]any{
		"type": "user.logged_in", "version": int32(3), "producer": "producer", "producer_seq": int64(7),
		"actor_type": "actor type", "actor_id": "actor id", "subject_id": "subject", "outcome": "outcome",
		"ip": "ip", "user_agent": "user agent", "request_id": "request id", "correlation_id": "correlation id", "causation_id": "causation id",
	} {
		if got[column] != want {
			t.Errorf("%s = %v, want %v", column, got[column], want)
		}
	}
	if at, ok := got["occurred_at"].(time.Time); !ok || !at.Equal(e.OccurredAt) {
		t.Errorf("occurred_at = %v, want %v", got["occurred_at"], e.OccurredAt)
	}
	if data, ok := got["data"].(map[string]any); !ok || data["sessionId"] != "s" {
		t.Errorf("data = %v, want %s", got["data"], e.Data)
	}
}

// BenchmarkInsert measures one statement with as many events as fit.
func BenchmarkInsert(b *testing.B) {
	s := newStore(b)
	events := make([]event.Event, insertLimit)
	for b.Loop() {
		b.StopTimer()
		for i := range events {
			events[i] = newEvent()
		}
		b.StartTimer()
		if err := s.insert(b.Context(), events); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.N*insertLimit)/b.Elapsed().Seconds(), "events/s")
}

// TestNumbers: an event that is in the log and arrives under another number gets a record
// of that number, too. The log does not change.
func TestNumbers(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	e := newEvent()
	e.ProducerEpoch = "A"
	again, other := e, newEvent()
	again.ProducerEpoch, again.ProducerSeq = "B", 3
	for range 2 {
		for _, events := range [][]event.Event{{e}, {again, other}, {e}} {
			if err := s.insert(t.Context(), events); err != nil {
				t.Fatal(err)
			}
		}
	}
	rows, err := s.db.Query(t.Context(), `SELECT epoch || seq FROM consumed_events WHERE event_id = $1 AND topic = 'audit-events' ORDER BY 1`, e.ID)
	if err != nil {
		t.Fatal(err)
	}
	got, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil || !slices.Equal(got, []string{"A7", "B3"}) {
		t.Errorf("numbers %v, %v", got, err)
	}
	if record, err := s.Get(t.Context(), e.ID); err != nil || record.ID != e.ID {
		t.Errorf("record %+v, %v", record, err)
	}
}
