package outbox_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/headgate/headgate/pkg/bus"
	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/pkg/outbox"
	"github.com/headgate/headgate/pkg/postgres"
	"github.com/headgate/headgate/pkg/service"
	"github.com/headgate/headgate/pkg/testkit"
)

// TestREL94Relay is REL-94: behind a pooler in transaction mode, several relays publish each
// event of concurrent transactions, in the order of its subject, and only a relay with a direct
// address listens.
func TestREL94Relay(t *testing.T) {
	t.Parallel()
	for name, direct := range map[string]bool{"polling": false, "with a direct address": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			address, client := testkit.DatabaseURL(t), testkit.Redis(t)
			cfg := postgres.Database{DatabaseURL: service.Secret(testkit.StartPooler(t, address, testkit.TransactionPooling).URL), DatabaseMaxConns: 6}
			if direct {
				cfg.DatabaseDirectURL = service.Secret(address)
			}
			box, instances := outbox.New("test"), [2]*postgres.Pool{}
			for i := range instances {
				db, err := postgres.Open(t.Context(), cfg, testkit.Log(t), outbox.Schema())
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(db.Close)
				instances[i] = db
				relay(t, db, client, bus.NewPublisher(client))
			}
			const n = 20
			for i := range n {
				db := instances[i%len(instances)]
				err := db.Transact(t.Context(), func(tx pgx.Tx) error { return box.Add(t.Context(), tx, signedUp(t.Context())) })
				if err != nil {
					t.Fatal(err)
				}
			}
			testkit.Eventually(t, func() error {
				if ids := published(t, client, event.Audit); len(ids) != n {
					return fmt.Errorf("%d events on the stream, want %d", len(ids), n)
				}
				return nil
			})
			var listening int
			admin := testkit.OpenDatabase(t, address)
			const query = `SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND query LIKE 'LISTEN%'`
			if err := admin.QueryRow(context.Background(), query).Scan(&listening); err != nil || direct != (listening == len(instances)) {
				t.Errorf("%d sessions listen, %v", listening, err)
			}
		})
	}
}
