package postgres_test

import (
	"context"
	"strconv"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/jackc/pgx/v5"

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
func openWith(t *testing.T, settings string) *postgres.Pool {
	t.Helper()
	first := things("")
	first.Files = fstest.MapFS{"00001_things.sql": things("").Files.(fstest.MapFS)["00001_things.sql"]}
	return testkit.OpenDatabase(t, testkit.DatabaseURL(t, first)+"&"+settings)
}

// TestLongMigrationEnds is REL-41: no statement_timeout ends a migration.
func TestLongMigrationEnds(t *testing.T) {
	t.Parallel()
	pool := openWith(t, "statement_timeout=200ms")
	for name, annotation := range map[string]string{"in a transaction": "", "without a transaction": "-- +goose NO TRANSACTION\n"} {
		schema := things(annotation + "-- +goose Up\nSET lock_timeout = '1s';\nSELECT pg_sleep(0.6);\n")
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
	testkit.Upgrade{
		DB: pool, Table: "things", Write: `INSERT INTO things (name) VALUES ('written')`,
		Schema: things("-- +goose Up\nALTER TABLE things ADD COLUMN size int;\n"),
	}.WantWritersPass(t)
	if _, err := pool.Exec(t.Context(), `UPDATE things SET size = 1`); err != nil {
		t.Errorf("after the migration: %v", err)
	}
}

// TestUnlimitedLockWait is REL-41: a migration without a transaction that contains a
// statement behind which writers would wait without a limit is refused.
func TestUnlimitedLockWait(t *testing.T) {
	t.Parallel()
	pool := openWith(t, "")
	const limit = "SET lock_timeout = '2500ms';\n"
	for statements, refused := range map[string]string{
		"ALTER TABLE things ADD COLUMN IF NOT EXISTS size int;\n":                                                                         "ALTER TABLE things ADD COLUMN IF NOT EXISTS size int",
		limit + "ALTER TABLE things ADD COLUMN IF NOT EXISTS size int;\n":                                                                 "",
		limit + "SET lock_timeout TO 0;\nTRUNCATE things;\n":                                                                              "TRUNCATE things",
		"DROP INDEX CONCURRENTLY IF EXISTS a; -- a comment; with CONCURRENTLY\nCREATE UNIQUE INDEX\n  CONCURRENTLY a ON things (name);\n": "",
		"CREATE INDEX CONCURRENTLY IF NOT EXISTS b ON things (name);\nDROP INDEX IF EXISTS b;\n":                                          "DROP INDEX IF EXISTS b",
		"ALTER TABLE things VALIDATE CONSTRAINT absent;\n":                                                                                "",
		"ALTER TABLE things VALIDATE CONSTRAINT absent, ADD COLUMN c int;\n":                                                              "ALTER TABLE things VALIDATE CONSTRAINT absent, ADD COLUMN c int",
		"select lock_everything(); -- +goose Down\n":                                                                                      "select lock_everything()",
	} {
		err := postgres.Migrate(t.Context(), pool, things("-- +goose NO TRANSACTION\n-- +goose Up\n"+statements))
		if got := err != nil && strings.Contains(err.Error(), "00002_change.sql: no lock_timeout before "+strconv.Quote(refused)); got != (refused != "") {
			t.Errorf("Migrate = %v of\n%s", err, statements)
		}
		if _, err := pool.Exec(t.Context(), `DELETE FROM schema_things WHERE version_id = 2`); err != nil {
			t.Fatal(err)
		}
	}
}

// TestUnsplitMigration: a migration without a transaction is refused if it has what its
// splitting into statements would damage.
func TestUnsplitMigration(t *testing.T) {
	t.Parallel()
	pool := openWith(t, "")
	for statements, part := range map[string]string{
		"SELECT 'x; -- y';\n":                             "'x; -- y'",
		"SELECT 'a' || 'b -- c';\n":                       "'b -- c'",
		"DO $do$ BEGIN PERFORM 1; END $do$;\n":            "$do$",
		"SELECT 1;\n/* a; comment */\n":                   "/*",
		"SELECT 1;\n-- +goose Down\nDROP TABLE things;\n": "-- +goose Down",
		"-- +goose StatementBegin\nSELECT 1;\n":           "-- +goose StatementBegin",
	} {
		err := postgres.Migrate(t.Context(), pool, things("-- +goose NO TRANSACTION\n-- +goose Up\n"+statements))
		if err == nil || !strings.Contains(err.Error(), "00002_change.sql: a migration without a transaction is split at each semicolon, so it must not have "+strconv.Quote(part)) {
			t.Errorf("Migrate = %v of\n%s", err, statements)
		}
	}
}

// TestIndexBuildWaitsForBackup is REL-41: CREATE INDEX CONCURRENTLY waits for old
// transactions without a limit, because no writer waits behind it. A limit would leave
// an invalid index.
func TestIndexBuildWaitsForBackup(t *testing.T) {
	t.Parallel()
	pool := openWith(t, "lock_timeout=100ms&statement_timeout=10s")
	endBackup := testkit.Backup(t, pool, "things")
	migrated := testkit.Migrating(t, pool, things("-- +goose NO TRANSACTION\n-- +goose Up\nCREATE INDEX CONCURRENTLY IF NOT EXISTS things_name ON things (name);\n"))
	testkit.AwaitLockWait(t, pool)
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
	testkit.WantMigrated(t, migrated)
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

// TestForeignIndexIsLeftAlone is REL-41: an index of an operator whose build failed keeps no
// service from starting, and is not rebuilt.
func TestForeignIndexIsLeftAlone(t *testing.T) {
	t.Parallel()
	pool := openWith(t, "")
	if _, err := pool.Exec(t.Context(), `INSERT INTO things VALUES ('a'), ('a')`); err != nil {
		t.Fatal(err)
	}
	if _, err := pool.Exec(t.Context(), `CREATE UNIQUE INDEX CONCURRENTLY operators ON things (name)`); err == nil {
		t.Fatal("the index of equal names was built")
	}
	if err := postgres.Migrate(t.Context(), pool, things("-- +goose Up\nSELECT 1;\n")); err != nil {
		t.Errorf("Migrate = %v", err)
	}
	var valid bool
	if err := pool.QueryRow(t.Context(), `SELECT indisvalid FROM pg_index WHERE indexrelid = 'operators'::regclass`).Scan(&valid); err != nil || valid {
		t.Errorf("the operator's index: valid %t, %v", valid, err)
	}
}

// TestIndexThatIsBeingBuilt is REL-41: a start does not wait for an index that an operator
// builds, under the name of a migration's index, and does not build it a second time.
func TestIndexThatIsBeingBuilt(t *testing.T) {
	t.Parallel()
	pool := openWith(t, "")
	const create = `CREATE INDEX CONCURRENTLY IF NOT EXISTS things_name ON things (name)`
	schema := things("-- +goose NO TRANSACTION\n-- +goose Up\n" + create + ";\n")
	if err := postgres.Migrate(t.Context(), pool, schema); err != nil {
		t.Fatal(err)
	}
	if _, err := pool.Exec(t.Context(), `DROP INDEX things_name`); err != nil {
		t.Fatal(err)
	}
	endBackup := testkit.Backup(t, pool, "things")
	built := make(chan error, 1)
	go func() {
		_, err := pool.Exec(context.WithoutCancel(t.Context()), create)
		built <- err
	}()
	testkit.AwaitLockWait(t, pool)
	testkit.WantMigrated(t, testkit.Migrating(t, pool, schema))
	select {
	case err := <-built:
		t.Errorf("the build ended during the backup: %v", err)
	default:
	}
	endBackup()
	if err := <-built; err != nil {
		t.Errorf("build = %v", err)
	}
	wantValid(t, pool, "things_name")
}

// wantValid fails unless the index of things is valid and the only one.
func wantValid(t *testing.T, pool *postgres.Pool, index string) {
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
