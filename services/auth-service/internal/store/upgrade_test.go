package store_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"

	"github.com/headgate/headgate/pkg/outbox"
	"github.com/headgate/headgate/pkg/postgres"
	"github.com/headgate/headgate/pkg/testkit"
	"github.com/headgate/headgate/services/auth-service/internal/store"
)

const (
	deletedBefore = "01926f39-0000-7000-8000-000000000001"
	deletedDuring = "01926f39-0000-7000-8000-000000000002"
	stays         = "01926f39-0000-7000-8000-000000000003"
)

// SEC-146: accounts can be written while the migration reads the deletions from the outbox,
// however long that takes, and deletions from that time are recorded. The migration can be
// applied to a database that has recorded the same deletions.
func TestSEC146MigrationRecordsDeletions(t *testing.T) {
	t.Parallel()
	db := testkit.Database(t, outbox.Schema(), testkit.Until(t, store.Schema(), "00019"))
	_, err := db.Exec(t.Context(), `
		INSERT INTO accounts (id, email, email_key, name, role, status, password_hash, created_at, updated_at)
		SELECT id::uuid, id || '@example.com', id || '@example.com', 'Ann', 'user', 'active', '', now(), now()
		FROM unnest($1::text[]) id`, []string{deletedDuring, stays})
	if err != nil {
		t.Fatal(err)
	}
	_, err = db.Exec(t.Context(), `
		INSERT INTO outbox (event_id, topic, name, subject, payload, created_at)
		SELECT gen_random_uuid(), 'user-events', name, subject, json_build_object('subject', subject), timestamptz '2026-01-02T00:00:00Z' - n * interval '1 day'
		FROM (VALUES ('user.deleted.v1', $1, 0), ('user.deleted.v1', $1, 1), ('user.signed_up.v1', $2, 2)) AS event (name, subject, n)`, deletedBefore, stays)
	if err != nil {
		t.Fatal(err)
	}
	slow, err := db.BeginTx(t.Context(), pgx.TxOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = slow.Rollback(context.Background()) }()
	if _, err := slow.Exec(t.Context(), `LOCK TABLE outbox IN ACCESS EXCLUSIVE MODE`); err != nil {
		t.Fatal(err)
	}
	until := testkit.Until(t, store.Schema(), "00022")
	migrated := testkit.Migrating(t, db, until)
	testkit.AwaitLockWait(t, db)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	if _, err := db.Exec(ctx, `DELETE FROM accounts WHERE id = $1`, deletedDuring); err != nil {
		t.Fatalf("delete an account while the migration reads the outbox: %v", err)
	}
	if err := slow.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	testkit.WantMigrated(t, migrated)
	wantErased(t, db)
	if _, err := db.Exec(t.Context(), `DELETE FROM schema_auth WHERE version_id = 22`); err != nil {
		t.Fatal(err)
	}
	testkit.WantMigrated(t, testkit.Migrating(t, db, until))
	wantErased(t, db)
}

// wantErased fails the test unless the two deletions are recorded, the earlier one with the
// time of its first event.
func wantErased(t *testing.T, db *postgres.Pool) {
	t.Helper()
	rows, err := db.Query(t.Context(), `SELECT id::text, erased_at FROM erased_accounts ORDER BY id`)
	if err != nil {
		t.Fatal(err)
	}
	got, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (string, error) {
		var id string
		var at time.Time
		err := row.Scan(&id, &at)
		return fmt.Sprintf("%s %t", id, at.Equal(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC))), err
	})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{deletedBefore + " true", deletedDuring + " false"}, got); diff != "" {
		t.Errorf("erased accounts: %s", diff)
	}
}
