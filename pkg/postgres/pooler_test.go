package postgres_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/headgate/headgate/pkg/postgres"
	"github.com/headgate/headgate/pkg/service"
	"github.com/headgate/headgate/pkg/testkit"
)

// values has a column of each kind that the services store.
var values = postgres.Schema{Name: "values", Files: fstest.MapFS{
	"00001_values.sql": {Data: []byte(`-- +goose Up
		CREATE TABLE vals (id uuid PRIMARY KEY, n integer NOT NULL, at timestamptz NOT NULL, data jsonb NOT NULL, raw bytea, names text[] NOT NULL, note text);
	`)},
	"00002_index.sql": {Data: []byte("-- +goose NO TRANSACTION\n-- +goose Up\nSET lock_timeout = '2500ms';\nALTER TABLE vals ADD COLUMN IF NOT EXISTS size integer;\nSET lock_timeout = 0;\nCREATE INDEX CONCURRENTLY IF NOT EXISTS vals_n ON vals (n);\n")},
}}

// poolers are the ways to a database of which each promise is tested.
var poolers = map[string]func(t *testing.T, address string) postgres.Database{
	"postgres itself": func(_ *testing.T, address string) postgres.Database {
		return postgres.Database{DatabaseURL: service.Secret(address)}
	},
	"session pooling": func(t *testing.T, address string) postgres.Database {
		t.Helper()
		return postgres.Database{DatabaseURL: service.Secret(testkit.StartPooler(t, address, testkit.SessionPooling).URL)}
	},
	"transaction pooling": func(t *testing.T, address string) postgres.Database {
		t.Helper()
		return postgres.Database{DatabaseURL: service.Secret(testkit.StartPooler(t, address, testkit.TransactionPooling).URL)}
	},
	"pooler that ignores parameters": func(t *testing.T, address string) postgres.Database {
		t.Helper()
		pooler := testkit.StartPooler(t, address, testkit.TransactionPooling,
			"ignore_startup_parameters = statement_timeout, lock_timeout, idle_in_transaction_session_timeout")
		return postgres.Database{DatabaseURL: service.Secret(pooler.URL)}
	},
	"pooler and direct address": func(t *testing.T, address string) postgres.Database {
		t.Helper()
		pooler := testkit.StartPooler(t, address, testkit.TransactionPooling)
		return postgres.Database{DatabaseURL: service.Secret(pooler.URL), DatabaseDirectURL: service.Secret(address)}
	},
	"two poolers": func(t *testing.T, address string) postgres.Database {
		t.Helper()
		return postgres.Database{
			DatabaseURL:       service.Secret(testkit.StartPooler(t, address, testkit.TransactionPooling).URL),
			DatabaseDirectURL: service.Secret(testkit.StartPooler(t, address, testkit.SessionPooling).URL),
		}
	},
}

// behindEach runs a test for each way to a database, with an empty one that is migrated
// through it.
func behindEach(t *testing.T, f func(t *testing.T, pool *postgres.Pool)) {
	t.Helper()
	for name, way := range poolers {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cfg := way(t, testkit.DatabaseURL(t))
			cfg.DatabaseMaxConns = 5
			log := &testkit.Buffer{}
			pool, err := postgres.Open(t.Context(), cfg, slog.New(slog.NewTextHandler(log, nil)), values)
			if err != nil {
				t.Fatalf("Open = %v", err)
			}
			t.Cleanup(pool.Close)
			if log.Count("level=WARN") > 0 { // What a pooler refuses is no outage.
				t.Errorf("Open warns: %s", log)
			}
			f(t, pool)
		})
	}
}

// TestREL94Values is REL-94: values of every type are stored and read as they are, by single
// statements, in batches and in transactions, from several connections at once.
func TestREL94Values(t *testing.T) {
	t.Parallel()
	behindEach(t, func(t *testing.T, pool *postgres.Pool) {
		t.Helper()
		const (
			insert = `INSERT INTO vals (id, n, at, data, raw, names) VALUES (@id, @n, @at, @data, @raw, @names)`
			read   = `SELECT n, at, data, raw, names FROM vals WHERE id = $1`
		)
		at := time.Date(2026, 3, 1, 12, 0, 0, 123456000, time.UTC)
		args := func(id string) pgx.StrictNamedArgs {
			return pgx.StrictNamedArgs{"id": id, "n": 7, "at": at, "data": json.RawMessage(`{"a": [1, "b"]}`), "raw": []byte{0, 255}, "names": []string{"x", `"y,`}}
		}
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				for n := range 10 {
					id := uuid.NewString()
					var err error
					switch n % 3 {
					case 0:
						_, err = pool.Exec(t.Context(), insert, args(id))
					case 1:
						batch := &pgx.Batch{}
						batch.Queue(postgres.LimitLockWait)
						batch.Queue(insert, args(id))
						err = pool.SendBatch(t.Context(), batch).Close()
					default:
						err = pool.Transact(t.Context(), func(tx pgx.Tx) error {
							_, err := tx.Exec(t.Context(), insert, args(id))
							return err
						})
					}
					if err != nil {
						t.Errorf("insert %d: %v", n, err)
						return
					}
					var (
						number int
						when   time.Time
						data   map[string]any
						raw    []byte
						names  []string
					)
					if err := pool.QueryRow(t.Context(), read, id).Scan(&number, &when, &data, &raw, &names); err != nil {
						t.Errorf("read %d: %v", n, err)
						return
					}
					if number != 7 || !when.Equal(at) || data["a"] == nil || !bytes.Equal(raw, []byte{0, 255}) || len(names) != 2 || names[1] != `"y,` {
						t.Errorf("read %d, %s, %v, %v, %q", number, when, data, raw, names)
					}
				}
			})
		}
		wg.Wait()
	})
}

// TestREL94Limits is REL-94: every way to run a statement limits how long it may run, wait
// for a lock, and keep a transaction open.
func TestREL94Limits(t *testing.T) {
	t.Parallel()
	const want = "15s 2500ms 1min UTC"
	const query = `SELECT concat_ws(' ', current_setting('statement_timeout'), current_setting('lock_timeout'), current_setting('idle_in_transaction_session_timeout'), current_setting('timezone')) WHERE $1`
	behindEach(t, func(t *testing.T, pool *postgres.Pool) {
		t.Helper()
		check := func(how string, err error, got string) {
			t.Helper()
			if err != nil || got != want {
				t.Errorf("%s: limits %q, %v, want %q", how, got, err, want)
			}
		}
		var got string
		err := pool.QueryRow(t.Context(), query, true).Scan(&got)
		check("QueryRow", err, got)

		found, err := pool.Query(t.Context(), query, true)
		if err != nil {
			t.Fatal(err)
		}
		all, err := pgx.CollectRows(found, pgx.RowTo[string])
		check("Query", err, strings.Join(all, ","))

		_, err = pool.Exec(t.Context(), `UPDATE vals SET note = (`+query+`)`, true)
		check("Exec", err, want)
		_, err = pool.Exec(t.Context(), `CREATE TABLE copied AS `+strings.ReplaceAll(query, "$1", "true"))
		if err == nil {
			err = pool.QueryRow(t.Context(), `SELECT concat_ws FROM copied`).Scan(&got)
		}
		check("Exec without arguments", err, got)

		batch := &pgx.Batch{}
		batch.Queue(query, true).QueryRow(func(row pgx.Row) error { return row.Scan(&got) })
		check("SendBatch", pool.SendBatch(t.Context(), batch).Close(), got)

		for _, options := range []pgx.TxOptions{{}, {IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly}} {
			var isolation string
			err = pool.TransactWith(t.Context(), options, func(tx pgx.Tx) error {
				if err := tx.QueryRow(t.Context(), query, true).Scan(&got); err != nil {
					return err
				}
				return tx.QueryRow(t.Context(), `SHOW transaction_isolation`).Scan(&isolation)
			})
			check("Transact", err, got)
			if options.IsoLevel != "" && isolation != string(options.IsoLevel) {
				t.Errorf("isolation %s, want %s", isolation, options.IsoLevel)
			}
		}

		read := &pgx.Batch{}
		read.Queue(query, true).QueryRow(func(row pgx.Row) error { return row.Scan(&got) })
		err = postgres.Decide(t.Context(), pool, read, func(postgres.Querier, *pgx.Batch) error { return nil })
		check("Decide", err, got)
	})
}

// TestREL94LockedRow is REL-94: a statement that meets a locked row fails after 2.5 s as
// Contended, and nothing of it is left behind.
func TestREL94LockedRow(t *testing.T) {
	t.Parallel()
	behindEach(t, func(t *testing.T, pool *postgres.Pool) {
		t.Helper()
		id := uuid.NewString()
		if _, err := pool.Exec(t.Context(), `INSERT INTO vals (id, n, at, data, names) VALUES ($1, 1, now(), '{}', '{}')`, id); err != nil {
			t.Fatal(err)
		}
		holder, err := pool.Begin(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer holder.Rollback(context.WithoutCancel(t.Context())) //nolint:errcheck // Nothing was changed.
		if _, err := holder.Exec(t.Context(), `SELECT 1 FROM vals WHERE id = $1 FOR UPDATE`, id); err != nil {
			t.Fatal(err)
		}
		if _, err := pool.Exec(t.Context(), `UPDATE vals SET n = 2 WHERE id = $1`, id); !postgres.Contended(err) {
			t.Errorf("update of the locked row = %v, want a lock timeout", err)
		}
		var skipped int
		err = pool.QueryRow(t.Context(), `SELECT n FROM vals WHERE id = $1 FOR UPDATE SKIP LOCKED`, id).Scan(&skipped)
		if !errors.Is(err, pgx.ErrNoRows) {
			t.Errorf("SKIP LOCKED found %d, %v", skipped, err)
		}
	})
}

// TestREL94NothingInASession is REL-94: through a pooler in transaction mode go no
// parameters of a session, no SET outside a transaction, no LISTEN and no named statement,
// also from a migration.
func TestREL94NothingInASession(t *testing.T) {
	t.Parallel()
	pooler := testkit.StartPooler(t, testkit.DatabaseURL(t), testkit.TransactionPooling, "default_pool_size = 2")
	pool, err := postgres.Open(t.Context(), postgres.Database{DatabaseURL: service.Secret(pooler.URL), DatabaseMaxConns: 10}, testkit.Log(t), values)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	if _, session := pool.Session(); session {
		t.Error("the pooler is said to keep sessions")
	}
	for range 5 {
		if _, err := pool.Exec(t.Context(), `UPDATE vals SET n = n + $1`, 1); err != nil {
			t.Fatal(err)
		}
		if err := postgres.Probe(pool)(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := pool.Transact(t.Context(), func(tx pgx.Tx) error {
			_, err := tx.Exec(t.Context(), `SELECT n FROM vals WHERE n = $1 FOR UPDATE SKIP LOCKED`, 1)
			return err
		}); err != nil {
			t.Fatal(err)
		}
	}
	// Both sessions of Postgres are as they were at their start.
	for range 10 {
		var state string
		const query = `SELECT concat_ws(' ', current_setting('lock_timeout'), current_setting('statement_timeout'),
			(SELECT count(*) FROM pg_prepared_statements WHERE name <> ''), (SELECT count(*) FROM pg_listening_channels()), (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()))`
		outside, err := pgx.Connect(t.Context(), pooler.URL)
		if err == nil {
			err = outside.QueryRow(t.Context(), query, pgx.QueryExecModeSimpleProtocol).Scan(&state)
		}
		if err != nil || state != "0 0 0 0 0" {
			t.Errorf("state of the session = %q, %v", state, err)
		}
		_ = outside.Close(t.Context()) // Nothing is open.
	}
}

// TestREL94RestartOfThePooler is REL-94: while the pooler is away, and when its server
// connections fail, statements fail as Unavailable; afterwards they succeed.
func TestREL94RestartOfThePooler(t *testing.T) {
	t.Parallel()
	pooler := testkit.StartPooler(t, testkit.DatabaseURL(t), testkit.TransactionPooling, "default_pool_size = 2", "query_wait_timeout = 1")
	pool, err := postgres.Open(t.Context(), postgres.Database{DatabaseURL: service.Secret(pooler.URL), DatabaseMaxConns: 5}, testkit.Log(t), values)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	update := func(ctx context.Context) error {
		_, err := pool.Exec(ctx, `UPDATE vals SET n = n + $1`, 1)
		return err
	}
	var tx pgx.Tx
	for range 2 {
		if tx, err = pool.Begin(t.Context()); err != nil {
			t.Fatal(err)
		}
		defer tx.Rollback(context.WithoutCancel(t.Context())) //nolint:errcheck // The connection is lost.
	}
	if err := update(t.Context()); !postgres.Unavailable(err) { // query_wait_timeout
		t.Errorf("without a free connection: %v", err)
	}
	pooler.Kill()
	if _, err := tx.Exec(t.Context(), `UPDATE vals SET n = n + $1`, 1); !postgres.Unavailable(err) {
		t.Errorf("in a transaction when the pooler ended: %v", err)
	}
	if err := update(t.Context()); !postgres.Unavailable(err) || !postgres.Disconnected(err) {
		t.Errorf("without the pooler: %v", err)
	}
	pooler.Start()
	testkit.Eventually(t, func() error { return update(t.Context()) })
}

// TestREL94SaysHowItIsConnected is REL-94: the log says at the start whether a pooler was
// found.
func TestREL94SaysHowItIsConnected(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]string{
		"postgres itself": "pooler=false direct_url=false", "transaction pooling": "pooler=true direct_url=false",
		"pooler that ignores parameters": "pooler=true direct_url=false", "pooler and direct address": "pooler=true direct_url=true",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cfg := poolers[name](t, testkit.DatabaseURL(t))
			cfg.DatabaseMaxConns = 2
			var log testkit.Buffer
			pool, err := postgres.Open(t.Context(), cfg, slog.New(slog.NewTextHandler(&log, nil)))
			if err != nil {
				t.Fatal(err)
			}
			pool.Close()
			if !strings.Contains(log.String(), `"database connected" `+want) {
				t.Errorf("log = %s, want %s", &log, want)
			}
		})
	}
}
