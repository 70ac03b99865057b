package postgres_test

import (
	"context"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	"github.com/headgate/headgate/pkg/postgres"
	"github.com/headgate/headgate/pkg/service"
	"github.com/headgate/headgate/pkg/testkit"
)

func TestMain(m *testing.M) { testkit.Main(m) }

var schema = postgres.Schema{Name: "things", Files: fstest.MapFS{
	"00001_things.sql": {Data: []byte("-- +goose Up\nCREATE TABLE things (name text CONSTRAINT things_name_key UNIQUE);\n")},
	"00002_index.sql":  {Data: []byte("-- +goose NO TRANSACTION\n-- +goose Up\nCREATE INDEX CONCURRENTLY IF NOT EXISTS things_lower ON things (lower(name));\n")},
}}

// TestReplicasMigrateTogether starts eight at once, one of whose migrations
// cannot run in a transaction.
func TestReplicasMigrateTogether(t *testing.T) {
	t.Parallel()
	cfg := postgres.Database{DatabaseURL: service.Secret(testkit.DatabaseURL(t)), DatabaseMaxConns: 2}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			pool, err := postgres.Open(t.Context(), cfg, testkit.Log(t), schema)
			if err != nil {
				t.Errorf("Open = %v", err)
				return
			}
			defer pool.Close()
			if _, err := pool.Exec(t.Context(), `SELECT name FROM things`); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
}

func TestViolates(t *testing.T) {
	t.Parallel()
	pool := testkit.Database(t, schema)
	const insert = `INSERT INTO things (name) VALUES ('a')`
	if _, err := pool.Exec(t.Context(), insert); err != nil || postgres.Violates(err, "things_name_key") {
		t.Errorf("first insert = %v", err)
	}
	_, err := pool.Exec(t.Context(), insert)
	if !postgres.Violates(err, "things_name_key") || postgres.Violates(err, "other") {
		t.Errorf("second insert = %v", err)
	}
}

func TestOpenWaitsUntilItsContextEnds(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), 600*time.Millisecond)
	defer cancel()
	_, err := postgres.Open(ctx, postgres.Database{DatabaseURL: "postgres://u:geheim@127.0.0.1:1/x", DatabaseMaxConns: 2}, testkit.Log(t))
	if err == nil || strings.Contains(err.Error(), "geheim") {
		t.Errorf("Open = %v", err)
	}
}
