package postgres_test

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/headgate/headgate/pkg/postgres"
	"github.com/headgate/headgate/pkg/testkit"
)

// things has a table that the migration of the test changes.
func things(migration string) postgres.Schema {
	return postgres.Schema{Name: "things", Files: fstest.MapFS{
		"00001_things.sql": {Data: []byte("-- +goose Up\nCREATE TABLE things (name text);\n")},
		"00002_change.sql": {Data: []byte(migration)},
	}}
}

// openWith returns a pool on a database with the table things. Its connections have the
// settings, as those of a service have a statement_timeout.
func openWith(t *testing.T, settings string) *pgxpool.Pool {
	t.Helper()
	first := things("")
	first.Files = fstest.MapFS{"00001_things.sql": things("").Files.(fstest.MapFS)["00001_things.sql"]}
	pool, err := pgxpool.New(t.Context(), testkit.DatabaseURL(t, first)+"&"+settings)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	return pool
}

// begin starts a transaction that has read things, as pg_dump does, and holds its lock
// and snapshot until the returned function is called.
func begin(t *testing.T, pool *pgxpool.Pool) (end func()) {
	t.Helper()
	tx, err := pool.BeginTx(t.Context(), pgx.TxOptions{IsoLevel: pgx.RepeatableRead})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(t.Context(), `SELECT count(*) FROM things`); err != nil {
		t.Fatal(err)
	}
	end = func() { _ = tx.Rollback(context.Background()) } // After the first call it has ended.
	t.Cleanup(end)
	return end
}

// migrating runs Migrate until the test ends.
func migrating(t *testing.T, pool *pgxpool.Pool, schema postgres.Schema) <-chan error {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	result, ended := make(chan error, 1), make(chan struct{})
	go func() {
		defer close(ended)
		result <- postgres.Migrate(ctx, pool, schema)
	}()
	t.Cleanup(func() {
		cancel()
		<-ended
	})
	return result
}

func wantMigrated(t *testing.T, result <-chan error) {
	t.Helper()
	select {
	case err := <-result:
		if err != nil {
			t.Errorf("Migrate = %v", err)
		}
	case <-time.After(30 * time.Second):
		t.Error("Migrate did not end")
	}
}

// awaitWaiting waits until a migration waits for a lock.
func awaitWaiting(t *testing.T, pool *pgxpool.Pool) {
	t.Helper()
	testkit.Eventually(t, 10*time.Second, func() error {
		var waiting int
		const query = `SELECT count(*) FROM pg_locks JOIN pg_stat_activity USING (pid) WHERE NOT granted AND datname = current_database()`
		if err := pool.QueryRow(t.Context(), query).Scan(&waiting); err != nil {
			return err
		}
		if waiting == 0 {
			return errors.New("nothing waits for a lock")
		}
		return nil
	})
}

// TestLongMigrationEnds is REL-41: no statement_timeout ends a migration.
func TestLongMigrationEnds(t *testing.T) {
	t.Parallel()
	pool := openWith(t, "statement_timeout=200ms")
	for name, annotation := range map[string]string{"in a transaction": "", "without a transaction": "-- +goose NO TRANSACTION\n"} {
		schema := things(annotation + "-- +goose Up\nSELECT pg_sleep(0.6);\n")
		schema.Name = "things_" + name[:2]
		schema.Files.(fstest.MapFS)["00001_things.sql"].Data = []byte("-- +goose Up\nSELECT 1;\n")
		if err := postgres.Migrate(t.Context(), pool, schema); err != nil {
			t.Errorf("%s: Migrate = %v", name, err)
		}
	}
	var timeout string
	if err := pool.QueryRow(t.Context(), "SHOW statement_timeout").Scan(&timeout); err != nil || timeout != "200ms" {
		t.Errorf("afterwards the pool's statement_timeout is %q, %v", timeout, err)
	}
}

// TestMigrationLetsWritersPass is REL-41: while a backup holds its locks, an ALTER TABLE
// is retried, and writers of the table wait only briefly. After the backup it succeeds.
func TestMigrationLetsWritersPass(t *testing.T) {
	t.Parallel()
	pool := openWith(t, "")
	endBackup := begin(t, pool)
	migrated := migrating(t, pool, things("-- +goose Up\nALTER TABLE things ADD COLUMN size int;\n"))
	for range 2 { // also in a later try
		awaitWaiting(t, pool)
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		_, err := pool.Exec(ctx, `INSERT INTO things (name) VALUES ('written')`)
		cancel()
		if err != nil {
			t.Fatalf("write while the ALTER TABLE waits: %v", err)
		}
		select {
		case err := <-migrated:
			t.Fatalf("Migrate = %v while the backup had its locks", err)
		default:
		}
	}
	endBackup()
	wantMigrated(t, migrated)
	if _, err := pool.Exec(t.Context(), `UPDATE things SET size = 1`); err != nil {
		t.Errorf("after the migration: %v", err)
	}
}

// TestIndexBuildWaitsForBackup is REL-41: CREATE INDEX CONCURRENTLY waits for old
// transactions without a limit, because no writer waits behind it. A limit would leave
// an invalid index.
func TestIndexBuildWaitsForBackup(t *testing.T) {
	t.Parallel()
	pool := openWith(t, "lock_timeout=100ms&statement_timeout=10s")
	endBackup := begin(t, pool)
	migrated := migrating(t, pool, things("-- +goose NO TRANSACTION\n-- +goose Up\nCREATE INDEX CONCURRENTLY IF NOT EXISTS things_name ON things (name);\n"))
	awaitWaiting(t, pool)
	started := time.Now()
	for i := 0; time.Since(started) < 500*time.Millisecond; i++ { // longer than lock_timeout
		if _, err := pool.Exec(t.Context(), `INSERT INTO things (name) VALUES ($1)`, strconv.Itoa(i)); err != nil {
			t.Fatalf("write while the index is built: %v", err)
		}
	}
	select {
	case err := <-migrated:
		t.Fatalf("Migrate = %v while the backup had its snapshot", err)
	default:
	}
	endBackup()
	wantMigrated(t, migrated)
	wantValid(t, pool, "things_name")
}

// TestInvalidIndexIsRebuilt is REL-41: an index build that was interrupted, and what an
// interrupted rebuild left, are mended at the next start.
func TestInvalidIndexIsRebuilt(t *testing.T) {
	t.Parallel()
	pool := openWith(t, "")
	exec := func(statements ...string) {
		t.Helper()
		for _, statement := range statements {
			if _, err := pool.Exec(t.Context(), statement); err != nil {
				t.Fatalf("%s: %v", statement, err)
			}
		}
	}
	const create = `CREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS "things Name" ON things (name)`
	exec(`INSERT INTO things VALUES ('a'), ('a')`)
	if _, err := pool.Exec(t.Context(), create); err == nil {
		t.Fatal("the index of equal names was built")
	}
	if _, err := pool.Exec(t.Context(), `REINDEX INDEX CONCURRENTLY "things Name"`); err == nil {
		t.Fatal("the index of equal names was rebuilt")
	}
	schema := things("-- +goose NO TRANSACTION\n-- +goose Up\n" + create + ";\n")
	if err := postgres.Migrate(t.Context(), pool, schema); err == nil || !strings.Contains(err.Error(), "things Name") {
		t.Errorf("Migrate = %v while names are equal", err)
	}
	exec(`TRUNCATE things`)
	if err := postgres.Migrate(t.Context(), pool, schema); err != nil {
		t.Fatalf("Migrate = %v", err)
	}
	wantValid(t, pool, "things Name")
}

// wantValid fails unless the index of things is valid and the only one.
func wantValid(t *testing.T, pool *pgxpool.Pool, index string) {
	t.Helper()
	rows, err := pool.Query(t.Context(), `SELECT indexrelid::regclass::text || CASE WHEN indisvalid THEN '' ELSE ' is invalid' END FROM pg_index WHERE indrelid = 'things'::regclass`)
	if err != nil {
		t.Fatal(err)
	}
	found, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil || len(found) != 1 || strings.Trim(found[0], `"`) != index {
		t.Errorf("indexes = %q, %v, want %q", found, err, index)
	}
}
