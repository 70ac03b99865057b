package postgres_test

import (
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/headgate/headgate/pkg/postgres"
	"github.com/headgate/headgate/pkg/service"
	"github.com/headgate/headgate/pkg/testkit"
)

// TestProbe: the probe finds a database that accepts no change, and no lock of another
// transaction makes it wait.
func TestProbe(t *testing.T) {
	t.Parallel()
	address := testkit.DatabaseURL(t)
	for mode, available := range map[string]bool{"off": true, "on": false} {
		probe := postgres.Probe(testkit.OpenDatabase(t, address+"&default_transaction_read_only="+mode))
		for range 2 {
			if err := probe(t.Context()); (err == nil) != available || !available && !postgres.Unavailable(err) {
				t.Errorf("read-only %s: probe = %v", mode, err)
			}
		}
	}
}

// TestContended: a lock timeout and a deadlock are faults of the statement, not of the
// database.
func TestContended(t *testing.T) {
	t.Parallel()
	db := testkit.Database(t)
	if _, err := db.Exec(t.Context(), `CREATE TABLE numbers (n integer PRIMARY KEY); INSERT INTO numbers VALUES (1), (2)`); err != nil {
		t.Fatal(err)
	}
	lock := func(tx pgx.Tx, n int) error {
		_, err := tx.Exec(t.Context(), `SELECT 1 FROM numbers WHERE n = $1 FOR UPDATE`, n)
		return err
	}
	begin := func() pgx.Tx {
		tx, err := db.Begin(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = tx.Rollback(t.Context()) }) // It may be over.
		return tx
	}
	want := func(name string, err error) {
		t.Helper()
		if !postgres.Contended(err) || postgres.Unavailable(err) {
			t.Errorf("%s: %v: contended %t, unavailable %t", name, err, postgres.Contended(err), postgres.Unavailable(err))
		}
	}
	first, second := begin(), begin()
	if err := lock(first, 1); err != nil {
		t.Fatal(err)
	}
	if err := lock(second, 2); err != nil {
		t.Fatal(err)
	}
	timed := begin()
	if _, err := timed.Exec(t.Context(), `SET LOCAL lock_timeout = '50ms'`); err != nil {
		t.Fatal(err)
	}
	want("lock timeout", lock(timed, 1))
	waiting := make(chan error, 1)
	go func() { waiting <- lock(first, 2) }()
	own := lock(second, 1)
	if err := second.Rollback(t.Context()); err != nil {
		t.Error(err)
	}
	if other := <-waiting; own == nil {
		own = other
	}
	want("deadlock", own)
}

// TestLockTimeout: the sessions of a service wait for a lock for less than three
// seconds.
func TestLockTimeout(t *testing.T) {
	t.Parallel()
	cfg := postgres.Database{DatabaseURL: service.Secret(testkit.DatabaseURL(t)), DatabaseMaxConns: 2}
	db, err := postgres.Open(t.Context(), cfg, testkit.Log(t))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	var timeout time.Duration
	var text string
	if err := db.QueryRow(t.Context(), `SHOW lock_timeout`).Scan(&text); err != nil {
		t.Fatal(err)
	}
	if timeout, err = time.ParseDuration(text); err != nil || timeout <= 0 || timeout >= 3*time.Second {
		t.Errorf("lock_timeout = %s, %v, want less than 3 s", text, err)
	}
}
