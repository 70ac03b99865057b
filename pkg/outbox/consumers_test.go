package outbox_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/headgate/headgate/pkg/bus"
	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/pkg/outbox"
	"github.com/headgate/headgate/pkg/postgres"
	"github.com/headgate/headgate/pkg/reconcile"
	"github.com/headgate/headgate/pkg/testkit"
)

// TestPurge is REL-54: old rows are deleted only once every consumer has consumed them.
// A consumer that an operator has forgotten holds nothing.
func TestPurge(t *testing.T) {
	t.Parallel()
	db, client := testkit.Database(t, outbox.Schema()), testkit.Redis(t)
	add(t, db, 10)
	publisher := bus.NewPublisher(client)
	epochs := newEpochs(t, db, client)
	// purge runs until the first number in the outbox is this one.
	purge := func(first int64) {
		t.Helper()
		relay := testkit.Run(t, outbox.NewRelay(db, publisher, epochs, testkit.Log(t), prometheus.NewRegistry()))
		testkit.Eventually(t, func() error {
			var got, left int64
			if err := db.QueryRow(t.Context(), `SELECT min(seq), count(*) FILTER (WHERE published_at IS NULL) FROM outbox`).Scan(&got, &left); err != nil {
				return err
			}
			if got != first || left > 0 {
				return fmt.Errorf("first number %d, %d unpublished; want %d, 0", got, left, first)
			}
			return nil
		})
		relay.Stop()
	}
	purge(1)
	if _, err := db.Exec(t.Context(), `UPDATE outbox SET published_at = now() - interval '8 days' WHERE seq <= 9`); err != nil {
		t.Fatal(err)
	}
	purge(1) // No consumer is known: every row is needed.

	published := outbox.NewPublished(db, publisher, epochs)
	w, err := published.Watermark(t.Context(), event.Audit)
	if err != nil {
		t.Fatal(err)
	}
	consumed := func(seq int64) reconcile.ConsumedWatermark {
		return reconcile.ConsumedWatermark{Producers: map[string]map[string]reconcile.Consumed{"test": {w.Epoch: {Seq: seq}}}}
	}
	consumers := map[string]reconcile.ConsumedWatermark{"a": consumed(7), "b": consumed(3)}
	if err := published.StoreConsumed(t.Context(), event.Audit, consumers); err != nil {
		t.Fatal(err)
	}
	purge(4)
	if err := outbox.Forget(t.Context(), db, "nobody"); !errors.Is(err, outbox.ErrUnknownConsumer) {
		t.Errorf("Forget(nobody) = %v", err)
	}
	if err := outbox.Forget(t.Context(), db, "b"); err != nil {
		t.Fatal(err)
	}
	// What it had posted before says nothing new.
	if err := published.StoreConsumed(t.Context(), event.Audit, consumers); err != nil {
		t.Fatal(err)
	}
	purge(8)
	consumers["a"] = consumed(10)
	if err := published.StoreConsumed(t.Context(), event.Audit, consumers); err != nil {
		t.Fatal(err)
	}
	purge(10) // The last one is not old.
}

// add commits events of the audit stream.
func add(t *testing.T, db *postgres.Pool, n int) {
	t.Helper()
	box := outbox.New("test")
	err := pgx.BeginFunc(t.Context(), db, func(tx pgx.Tx) error {
		for range n {
			if err := box.Add(t.Context(), tx, event.New(t.Context(), time.Now(), "subject", event.SessionRefreshed{})); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
