package testkit

import (
	"context"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/headgate/headgate/pkg/cursor"
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

// WantPages reads a list page by page. The test fails unless it has n items, each once, the
// newest first. at returns the time of creation and the id of an item.
func WantPages[T any](t testing.TB, n int, list func(after cursor.Position, limit int) ([]T, error), at func(T) (created time.Time, id string)) {
	t.Helper()
	const limit = 1000
	seen := map[string]bool{}
	for after := cursor.Position(""); ; {
		page, err := list(after, limit)
		if err != nil {
			t.Fatal(err)
		}
		for _, item := range page {
			created, id := at(item)
			if last, _ := after.Bound(); seen[id] || created.After(last) {
				t.Fatalf("%s, created %s, is listed after %s", id, created, after)
			}
			seen[id], after = true, cursor.At(created, id)
		}
		if len(page) < limit {
			break
		}
	}
	if len(seen) != n {
		t.Errorf("%d items are listed, want %d", len(seen), n)
	}
}
