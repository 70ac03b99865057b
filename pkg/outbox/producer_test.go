package outbox_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/pkg/outbox"
	"github.com/headgate/headgate/pkg/testkit"
)

// TestWrongProducer: an event that its consumers would refuse from this producer is refused
// in the transaction of the change.
func TestWrongProducer(t *testing.T) {
	t.Parallel()
	db := testkit.Database(t, outbox.Schema())
	for _, tc := range []struct {
		producer string
		payload  event.Payload
		want     error
	}{
		{"user-service", event.UserProfileUpdated{}, nil},
		{"user-service", event.UserDeleted{}, event.ErrWrongProducer},
		{"email-service", event.EmailSent{}, nil},
		{"auth-service", event.EmailSent{}, event.ErrWrongProducer},
	} {
		e := event.New(t.Context(), time.Now(), "subject", tc.payload)
		err := pgx.BeginFunc(t.Context(), db, func(tx pgx.Tx) error { return outbox.New(tc.producer).Add(t.Context(), tx, e) })
		if !errors.Is(err, tc.want) || err != nil && !strings.Contains(err.Error(), tc.producer) {
			t.Errorf("Add(%s) by %s = %v, want %v", e.Name, tc.producer, err, tc.want)
		}
	}
	var rows int
	if err := db.QueryRow(t.Context(), `SELECT count(DISTINCT event_id) FROM outbox`).Scan(&rows); err != nil || rows != 2 {
		t.Errorf("%d events (%v), want 2", rows, err)
	}
}
