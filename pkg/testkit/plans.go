package testkit

import (
	"context"
	"testing"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/headgate/headgate/pkg/postgres"
)

// Scans returns a pool of one connection on DatabaseURL, and a function that returns how
// often the pool has read a whole table in sequence.
func Scans(t testing.TB, table string, schemas ...postgres.Schema) (*postgres.Pool, func() int) {
	t.Helper()
	cfg, err := pgxpool.ParseConfig(DatabaseURL(t, schemas...))
	if err != nil {
		t.Fatalf("read the URL of the database: %v", err)
	}
	cfg.MaxConns = 1 // Each connection reports its scans itself.
	connections, err := pgxpool.NewWithConfig(context.Background(), cfg)
	if err != nil {
		t.Fatalf("open database: %v", err)
	}
	t.Cleanup(connections.Close)
	pool := postgres.NewPool(connections)
	return pool, func() int {
		t.Helper()
		n := 0
		if _, err := pool.Exec(context.Background(), `SELECT pg_stat_force_next_flush()`); err != nil {
			t.Fatal(err)
		}
		if err := pool.QueryRow(context.Background(), `SELECT seq_scan FROM pg_stat_user_tables WHERE relname = $1`, table).Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}
}
