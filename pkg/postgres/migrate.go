package postgres

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/lock"
)

// Schema is a set of migrations with a version table of its own, so that a
// package can bring its tables into the database of any service. Migrations
// only go forward, and the previous release must work with the new tables.
type Schema struct {
	Name  string // names the version table
	Files fs.FS  // *.sql as goose reads them, at the root
}

// versionTable returns the name of the table of the applied migrations.
func (s Schema) versionTable() string { return "schema_" + s.Name }

// NewSchema returns the schema whose migrations are in a folder of files. It
// panics if there is no such folder: it is part of the program.
func NewSchema(name string, files fs.FS, folder string) Schema {
	migrations, err := fs.Sub(files, folder)
	if err != nil {
		panic(err)
	}
	return Schema{Name: name, Files: migrations}
}

const (
	firstLockPause   = time.Second
	longestLockPause = 15 * time.Second
)

// Migrate applies the migrations of schema that the database lacks. It waits until ctx
// ends for another process that migrates. A migration may take as long as it needs: it
// has no statement_timeout. If it does not get a lock within the lock_timeout of pool, or
// 2.5 s, it is rolled back and retried until ctx ends, so writers wait only briefly.
//
// A migration without a transaction waits for its locks without a limit, since it is for
// statements such as CREATE INDEX CONCURRENTLY, behind which no writer waits. Before any
// other statement it sets a lock_timeout itself; Migrate refuses a migration that does not.
// Such a migration is retried from its first statement. If an index build was interrupted
// in an earlier start, Migrate builds the invalid index again. It leaves indexes alone that
// no migration creates, and those that are being built.
func Migrate(ctx context.Context, pool *pgxpool.Pool, schema Schema) error {
	return migrate(ctx, pool, slog.New(slog.DiscardHandler), schema)
}

func migrate(ctx context.Context, pool *pgxpool.Pool, log *slog.Logger, schemas ...Schema) error {
	cfg := pool.Config().ConnConfig
	params := cfg.RuntimeParams
	params["statement_timeout"] = "0"
	// While an ALTER TABLE waits, for example for a backup to end, everybody who comes
	// later to that table waits behind it.
	m := migrator{lockTimeout: cmp.Or(params["lock_timeout"], lockTimeout), log: log}
	params["lock_timeout"] = m.lockTimeout
	// With a single connection, the advisory lock, lock_timeout and the migrations share
	// a session. The lock is released when the connection closes.
	m.db = stdlib.OpenDB(*cfg)
	m.db.SetMaxOpenConns(1)
	defer m.db.Close()

	if err := m.lock(ctx); err != nil {
		return fmt.Errorf("wait for other migrations: %w", err)
	}
	for _, schema := range schemas {
		if err := m.apply(ctx, schema); err != nil {
			return fmt.Errorf("migrate %s: %w", schema.Name, err)
		}
	}
	if err := m.rebuildInvalidIndexes(ctx, schemas); err != nil {
		return fmt.Errorf("rebuild invalid indexes: %w", err)
	}
	return nil
}

type migrator struct {
	db          *sql.DB
	locker      lock.SessionLocker
	lockTimeout string
	log         *slog.Logger
}

func (m *migrator) lock(ctx context.Context) (err error) {
	if m.locker, err = lock.NewPostgresSessionLocker(lock.WithLockTimeout(1, math.MaxInt32)); err != nil {
		return err
	}
	conn, err := m.db.Conn(ctx)
	if err != nil {
		return err
	}
	defer conn.Close() // The session, and with it the lock, stays in m.db.
	return m.locker.SessionLock(ctx, conn)
}

func (m *migrator) apply(ctx context.Context, schema Schema) error {
	provider, err := goose.NewProvider(goose.DialectPostgres, m.db, schema.Files,
		goose.WithSessionLocker(m.locker), goose.WithTableName(schema.versionTable()),
		goose.WithDisableGlobalRegistry(true), goose.WithSlog(slog.New(slog.DiscardHandler)))
	if err != nil {
		return err
	}
	migrations, err := provider.Status(ctx)
	if err != nil {
		return err
	}
	for _, migration := range migrations {
		if migration.State != goose.StatePending {
			continue
		}
		text, err := fs.ReadFile(schema.Files, migration.Source.Path)
		if err != nil {
			return err
		}
		timeout := m.lockTimeout
		if withoutTransaction.Match(text) {
			timeout = "0"
			if statement := unlimitedLockWait(string(text)); statement != "" {
				return fmt.Errorf("%s: no lock_timeout before %q", migration.Source.Path, statement)
			}
		}
		err = m.retry(ctx, timeout, migration.Source.Path, func() error {
			_, err := provider.UpByOne(ctx)
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// retry runs f with a lock_timeout, and again while f gets no lock in that time.
func (m *migrator) retry(ctx context.Context, timeout, migration string, f func() error) error {
	pause := firstLockPause
	for attempt := 1; ; attempt++ {
		if _, err := m.db.ExecContext(ctx, `SELECT set_config('lock_timeout', $1, false)`, timeout); err != nil {
			return fmt.Errorf("set lock_timeout: %w", err)
		}
		err := f()
		if err == nil || !Contended(err) {
			return err
		}
		m.log.WarnContext(ctx, "migration did not get a lock; retrying", "migration", migration, "attempt", attempt, "next_in", pause.String(), "error", err.Error())
		select {
		case <-ctx.Done():
			return errors.Join(ctx.Err(), err)
		case <-time.After(pause):
		}
		pause = min(2*pause, longestLockPause)
	}
}
