package postgres_test

import (
	"fmt"
	"sync"
	"testing"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/headgate/headgate/pkg/postgres"
	"github.com/headgate/headgate/pkg/testkit"
)

// TestREL95SchemaChange is REL-95: whatever type a migration gives to a column while the
// service runs, no statement of the service fails. Each connection has executed all of them
// before.
func TestREL95SchemaChange(t *testing.T) {
	t.Parallel()
	for _, change := range []string{
		`ALTER TABLE vals ALTER n TYPE bigint`,
		`ALTER TABLE vals ALTER note TYPE varchar(100)`,
		`ALTER TABLE vals ALTER id TYPE text`,
		`ALTER TABLE vals ALTER note TYPE text COLLATE "C", ADD extra text NOT NULL DEFAULT '', DROP raw`,
		`ALTER TABLE vals ALTER n TYPE bigint, ALTER note TYPE varchar(100); ALTER TABLE vals RENAME TO renamed; CREATE VIEW vals AS SELECT * FROM renamed`,
		`DROP TYPE mood CASCADE; CREATE TYPE mood AS ENUM ('sad', 'glad'); ALTER TABLE vals ADD mood mood NOT NULL DEFAULT 'sad'`,
	} {
		t.Run(change, func(t *testing.T) {
			t.Parallel()
			for name, way := range poolers {
				if name != "postgres itself" && name != "transaction pooling" {
					continue
				}
				t.Run(name, func(t *testing.T) {
					t.Parallel()
					address := testkit.DatabaseURL(t, values)
					other := testkit.OpenDatabase(t, address)
					if _, err := other.Exec(t.Context(), `CREATE TYPE mood AS ENUM ('sad'); ALTER TABLE vals ADD mood mood NOT NULL DEFAULT 'sad'`); err != nil {
						t.Fatal(err)
					}
					cfg := way(t, address)
					cfg.DatabaseMaxConns = 4
					pool, err := postgres.Open(t.Context(), cfg, testkit.Log(t))
					if err != nil {
						t.Fatal(err)
					}
					t.Cleanup(pool.Close)
					inEveryConnection(t, pool)
					if _, err := other.Exec(t.Context(), change); err != nil {
						t.Fatal(err)
					}
					var wg sync.WaitGroup
					for range 8 {
						for how, do := range statements(t, pool) {
							wg.Go(func() {
								if err := do(); err != nil {
									t.Errorf("%s = %v", how, err)
								}
							})
						}
					}
					wg.Wait()
				})
			}
		})
	}
}

const (
	insertValue = `INSERT INTO vals (id, n, at, data, names, note, mood) VALUES ($1, $2, now(), '{}', '{}', 'a', $3)`
	readValue   = `SELECT id::text, note, mood::text FROM vals WHERE id = $1`
	readNotes   = `SELECT note FROM vals WHERE n = $1`
)

// inEveryConnection makes all connections of the pool prepare the statements.
func inEveryConnection(t *testing.T, pool *postgres.Pool) {
	t.Helper()
	for range pool.Config().MaxConns {
		tx, err := pool.Begin(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer tx.Rollback(t.Context()) //nolint:errcheck // Nothing is left of it.
		id := uuid.NewString()
		batch := &pgx.Batch{}
		batch.Queue(insertValue, id, 1, "sad")
		batch.Queue(readValue, id)
		batch.Queue(readNotes, 1)
		if err := tx.SendBatch(t.Context(), batch).Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// statements are the ways to execute them.
func statements(t *testing.T, pool *postgres.Pool) map[string]func() error {
	t.Helper()
	ctx := t.Context()
	read := func(q postgres.Querier, id string) error {
		var found, note, mood string
		if err := q.QueryRow(ctx, readValue, id).Scan(&found, &note, &mood); err != nil {
			return err
		}
		if found != id || note != "a" || mood != "sad" {
			return fmt.Errorf("read %s, %q, %q, want %s", found, note, mood, id)
		}
		return nil
	}
	return map[string]func() error{
		"Exec and QueryRow": func() error {
			id := uuid.NewString()
			if _, err := pool.Exec(ctx, insertValue, id, 1, "sad"); err != nil {
				return err
			}
			return read(pool, id)
		},
		"Query": func() error {
			found, err := pool.Query(ctx, readNotes, 1)
			if err != nil {
				return err
			}
			_, err = pgx.CollectRows(found, pgx.RowTo[string])
			return err
		},
		"SendBatch": func() error {
			id := uuid.NewString()
			batch := &pgx.Batch{}
			batch.Queue(insertValue, id, 1, "sad")
			batch.Queue(readValue, id).QueryRow(func(row pgx.Row) error {
				var found, note, mood string
				return row.Scan(&found, &note, &mood)
			})
			return pool.SendBatch(ctx, batch).Close()
		},
		"Transact": func() error {
			return pool.Transact(ctx, func(tx pgx.Tx) error {
				id := uuid.NewString()
				if _, err := tx.Exec(ctx, insertValue, id, 1, "sad"); err != nil {
					return err
				}
				return read(tx, id)
			})
		},
		"Decide": func() error {
			id := uuid.NewString()
			batch := &pgx.Batch{}
			batch.Queue(readNotes, 1)
			return postgres.Decide(ctx, pool, batch, func(_ postgres.Querier, write *pgx.Batch) error {
				write.Queue(insertValue, id, 1, "sad")
				write.Queue(readValue, id)
				return nil
			})
		},
	}
}
