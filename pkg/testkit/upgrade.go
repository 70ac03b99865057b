package testkit

import (
	"context"
	"errors"
	"io/fs"
	"testing"
	"testing/fstest"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/headgate/headgate/pkg/postgres"
)

// Until returns the schema with the migrations up to a version such as 00002.
func Until(t testing.TB, schema postgres.Schema, version string) postgres.Schema {
	t.Helper()
	names, err := fs.Glob(schema.Files, "*.sql")
	if err != nil {
		t.Fatal(err)
	}
	files := fstest.MapFS{}
	for _, name := range names {
		if name[:len(version)] > version {
			continue
		}
		data, err := fs.ReadFile(schema.Files, name)
		if err != nil {
			t.Fatal(err)
		}
		files[name] = &fstest.MapFile{Data: data}
	}
	return postgres.Schema{Name: schema.Name, Files: files}
}

// Upgrade is the migration of a database that is in use.
type Upgrade struct {
	DB     *postgres.Pool // of the previous release
	Schema postgres.Schema
	Table  string // that a migration locks
	Write  string // a statement of the previous release that writes to Table
}

// WantWritersPass fails the test unless a backup of the table delays the migration, and
// not the writers of the table, and the migration succeeds after the backup.
func (u Upgrade) WantWritersPass(t testing.TB) {
	t.Helper()
	endBackup := Backup(t, u.DB, u.Table)
	migrated := Migrating(t, u.DB, u.Schema)
	for range 2 { // also in a later attempt
		AwaitLockWait(t, u.DB)
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		_, err := u.DB.Exec(ctx, u.Write)
		cancel()
		if err != nil {
			t.Fatalf("write to %s while the migration waits: %v", u.Table, err)
		}
		select {
		case err := <-migrated:
			t.Fatalf("Migrate = %v while the backup had its locks", err)
		default:
		}
	}
	endBackup()
	WantMigrated(t, migrated)
}

// Backup starts a transaction that has read a table, as pg_dump does. It holds its lock
// and its snapshot until the returned function is called.
func Backup(t testing.TB, db *postgres.Pool, table string) (end func()) {
	t.Helper()
	tx, err := db.BeginTx(t.Context(), pgx.TxOptions{IsoLevel: pgx.RepeatableRead})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(t.Context(), `SELECT count(*) FROM `+table); err != nil {
		t.Fatal(err)
	}
	end = func() { _ = tx.Rollback(context.Background()) } // After the first call it has ended.
	t.Cleanup(end)
	return end
}

// Migrating runs postgres.Migrate until the test ends.
func Migrating(t testing.TB, db *postgres.Pool, schema postgres.Schema) <-chan error {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	result, ended := make(chan error, 1), make(chan struct{})
	go func() {
		defer close(ended)
		result <- postgres.Migrate(ctx, db, schema)
	}()
	t.Cleanup(func() {
		cancel()
		<-ended
	})
	return result
}

// WantMigrated waits for the result of Migrating, and fails the test if it is an error.
func WantMigrated(t testing.TB, result <-chan error) {
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

// AwaitLockWait waits until a session waits for a lock in the database.
func AwaitLockWait(t testing.TB, db *postgres.Pool) {
	t.Helper()
	Eventually(t, func() error {
		var waiting int
		const query = `SELECT count(*) FROM pg_locks JOIN pg_stat_activity USING (pid) WHERE NOT granted AND datname = current_database()`
		if err := db.QueryRow(t.Context(), query).Scan(&waiting); err != nil {
			return err
		}
		if waiting == 0 {
			return errors.New("nothing waits for a lock")
		}
		return nil
	})
}
