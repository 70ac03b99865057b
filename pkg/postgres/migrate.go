package postgres

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
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
//
// Migrate works through a pooler in transaction mode, too: it sets every limit for one
// transaction, and keeps other processes from migrating by a lock of a transaction that
// stays open. Only a statement_timeout of the role or the database then ends a migration
// that is not in a transaction.
func Migrate(ctx context.Context, pool *Pool, schema Schema) error {
	return migrate(ctx, pool, slog.New(slog.DiscardHandler), schema)
}

func migrate(ctx context.Context, pool *Pool, log *slog.Logger, schemas ...Schema) error {
	cfg, ok := pool.Session()
	if ok {
		cfg.AfterConnect = removeTimeouts
	} else {
		cfg = pool.Config().ConnConfig
	}
	// While an ALTER TABLE waits, for example for a backup to end, everybody who comes
	// later to that table waits behind it.
	m := migrator{lockTimeout: cmp.Or(cfg.RuntimeParams["lock_timeout"], lockTimeout), log: log, db: stdlib.OpenDB(*cfg)}
	defer m.db.Close()

	unlock, err := m.lock(ctx, cfg)
	if err != nil {
		return fmt.Errorf("wait for other migrations: %w", err)
	}
	defer unlock()
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

const noTimeouts = `SET %[1]s statement_timeout = 0; SET %[1]s lock_timeout = 0; SET %[1]s idle_in_transaction_session_timeout = 0; `

// removeTimeouts lets the statements of a session take as long as they need.
func removeTimeouts(ctx context.Context, conn *pgconn.PgConn) error {
	_, err := conn.Exec(ctx, fmt.Sprintf(noTimeouts, "SESSION")).ReadAll()
	return err
}

type migrator struct {
	db          *sql.DB
	locked      pgx.Tx // has the lock
	lockTimeout string
	log         *slog.Logger
}

// lock waits until no other process migrates. A transaction that stays open has the lock,
// since behind a pooler a session has none. It delays no index build: it has no snapshot.
func (m *migrator) lock(ctx context.Context, cfg *pgx.ConnConfig) (unlock func(), err error) {
	conn, err := pgx.ConnectConfig(ctx, cfg)
	if err != nil {
		return nil, err
	}
	unlock = func() { _ = conn.Close(context.WithoutCancel(ctx)) } // This ends the transaction, too.
	for {
		tx, err := conn.BeginTx(ctx, pgx.TxOptions{BeginQuery: "BEGIN; " + fmt.Sprintf(noTimeouts, "LOCAL")})
		var locked bool
		if err == nil {
			// Previous releases use the same number, which is goose's. The extended protocol
			// would keep the snapshot of the statement, and an index build would wait for it.
			err = tx.QueryRow(ctx, `SELECT pg_try_advisory_xact_lock($1)`, pgx.QueryExecModeSimpleProtocol, lock.DefaultLockID).Scan(&locked)
		}
		switch {
		case err != nil:
			unlock()
			return nil, err
		case locked:
			m.locked = tx
			return unlock, nil
		}
		err = tx.Rollback(ctx)
		select {
		case <-ctx.Done():
			err = ctx.Err()
		case <-time.After(firstLockPause):
		}
		if err != nil {
			unlock()
			return nil, err
		}
	}
}

func (m *migrator) apply(ctx context.Context, schema Schema) error {
	provider, err := goose.NewProvider(goose.DialectPostgres, m.db, limitedFiles{schema.Files, m.lockTimeout},
		goose.WithTableName(schema.versionTable()),
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
		if part := unsplit(string(text)); part != "" {
			return fmt.Errorf("%s: a migration without a transaction is split at each semicolon, so it must not have %q", migration.Source.Path, part)
		}
		if statement := unlimitedLockWait(string(text)); statement != "" {
			return fmt.Errorf("%s: no lock_timeout before %q", migration.Source.Path, statement)
		}
		err = m.retry(ctx, migration.Source.Path, func() error {
			_, err := provider.UpByOne(ctx)
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// retry runs f, and again while f does not get a lock in time.
func (m *migrator) retry(ctx context.Context, migration string, f func() error) error {
	pause := firstLockPause
	for attempt := 1; ; attempt++ {
		if _, err := m.locked.Exec(ctx, `SELECT`); err != nil {
			return fmt.Errorf("keep other processes from migrating: %w", err)
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
