package postgres_test

import (
	"context"
	"errors"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/headgate/headgate/pkg/postgres"
	"github.com/headgate/headgate/pkg/testkit"
)

// TestDecide: all or nothing, whatever fails, and the connection is as good as
// before.
func TestDecide(t *testing.T) {
	t.Parallel()
	db := testkit.Database(t)
	if _, err := db.Exec(t.Context(), `CREATE TABLE counts (id int PRIMARY KEY, n int NOT NULL CHECK (n < 10))`); err != nil {
		t.Fatal(err)
	}
	if _, err := db.Exec(t.Context(), `INSERT INTO counts VALUES (1, 0)`); err != nil {
		t.Fatal(err)
	}
	refused := errors.New("refused")
	change := func(ctx context.Context, id int, decide func(n int) (int, error)) error {
		var n int
		read := &pgx.Batch{}
		read.Queue(`SELECT n FROM counts WHERE id = $1 FOR UPDATE`, id).QueryRow(func(row pgx.Row) error { return row.Scan(&n) })
		return postgres.Decide(ctx, db, read, func(q postgres.Querier, write *pgx.Batch) error {
			if _, err := q.Exec(ctx, `INSERT INTO counts VALUES ($1, 0)`, 100+n); err != nil {
				return err
			}
			to, err := decide(n)
			write.Queue(`UPDATE counts SET n = $1 WHERE id = $2`, to, id)
			return err
		})
	}
	add := func(by int) func(int) (int, error) { return func(n int) (int, error) { return n + by, nil } }
	ended, end := context.WithCancel(t.Context())
	for _, tc := range []struct {
		name   string
		ctx    context.Context
		id     int
		decide func(int) (int, error)
		want   error
	}{
		{"works", t.Context(), 1, add(1), nil},
		{"nothing to read", t.Context(), 2, add(1), pgx.ErrNoRows},
		{"refused", t.Context(), 1, func(int) (int, error) { return 5, refused }, refused},
		{"a statement fails", t.Context(), 1, add(10), nil},
		{"the context ends", ended, 1, func(n int) (int, error) { end(); return n + 1, nil }, context.Canceled},
		{"works again", t.Context(), 1, add(1), nil},
	} {
		err := change(tc.ctx, tc.id, tc.decide)
		switch {
		case tc.name == "a statement fails":
			if !postgres.Violates(err, "counts_n_check") {
				t.Errorf("%s: Decide = %v, want a violation", tc.name, err)
			}
		case !errors.Is(err, tc.want):
			t.Errorf("%s: Decide = %v, want %v", tc.name, err, tc.want)
		}
	}
	var n, rows int
	if err := db.QueryRow(t.Context(), `SELECT (SELECT n FROM counts WHERE id = 1), count(*) FROM counts`).Scan(&n, &rows); err != nil {
		t.Fatal(err)
	}
	if n != 2 || rows != 3 {
		t.Errorf("n = %d in %d rows, want 2 in 3", n, rows)
	}
	wantIdle(t, db)
}

// wantIdle fails unless all connections are back in the pool and in no transaction.
func wantIdle(t *testing.T, db *postgres.Pool) {
	t.Helper()
	if stat := db.Stat(); stat.AcquiredConns() != 0 {
		t.Errorf("%d connections are not back", stat.AcquiredConns())
	}
	for _, conn := range db.AcquireAllIdle(t.Context()) {
		if status := conn.Conn().PgConn().TxStatus(); status != 'I' {
			t.Errorf("a connection has the status %c", status)
		}
		conn.Release()
	}
}
