package outbox_test

import (
	"context"
	"errors"
	"log/slog"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/headgate/headgate/pkg/bus"
	"github.com/headgate/headgate/pkg/outbox"
	"github.com/headgate/headgate/pkg/testkit"
)

// A stop that interrupts the purge is not a fault, so it logs no warning.
func TestInterruptedPurgeLogsNoWarning(t *testing.T) {
	t.Parallel()
	db, client, log := testkit.Database(t, outbox.Schema()), testkit.Redis(t), &testkit.Buffer{}
	handler := slog.NewTextHandler(log, nil)
	epochs := outbox.NewEpochs(db, client, "test", testkit.Log(t), prometheus.NewRegistry())
	relay := outbox.NewRelay(db, bus.NewPublisher(client), epochs, slog.New(handler), prometheus.NewRegistry())
	locked, err := db.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = locked.Rollback(context.Background()) }() // It has changed nothing.
	if _, err := locked.Exec(t.Context(), `LOCK TABLE outbox_epoch_checksums`); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	ended := make(chan error, 1)
	go func() { ended <- relay.Run(ctx) }()
	testkit.Eventually(t, func() error {
		var waiting bool
		err := locked.QueryRow(t.Context(), `SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted AND relation = 'outbox_epoch_checksums'::regclass)`).Scan(&waiting)
		if err == nil && !waiting {
			err = errors.New("the purge does not wait yet")
		}
		return err
	})
	stop()
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	if n := log.Count("outbox purge failed"); n != 0 {
		t.Errorf("log = %s", log)
	}
}
