// Package postgres opens a service's database: it waits until the database answers,
// applies the migrations, and returns the pool. Commands open it without migrating it.
// The package has no tables of its own.
package postgres

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/headgate/headgate/pkg/service"
)

// Database is the part of the configuration that says where the database is.
type Database struct {
	DatabaseURL      service.Secret `envconfig:"DATABASE_URL" ignored:"true" required:"true" desc:"postgres://user:password@host:port/database of the service's own database."`
	DatabaseMaxConns int32          `envconfig:"DATABASE_MAX_CONNS" default:"20" desc:"Connections that one instance may hold."`
}

// DatabaseConfig lets commands find this part in a service's configuration.
func (d Database) DatabaseConfig() Database { return d }

// Validate implements service.Validator.
func (d Database) Validate() error {
	u, err := url.Parse(d.DatabaseURL.Reveal())
	if err != nil || u.Scheme != "postgres" && u.Scheme != "postgresql" || u.Host == "" {
		return errors.New("DATABASE_URL: want postgres://user:password@host:port/database")
	}
	if d.DatabaseMaxConns < 2 {
		return errors.New("DATABASE_MAX_CONNS: want 2 or more")
	}
	return nil
}

const (
	statementTimeout = "15s"
	lockTimeout      = "2500ms" // A request that meets a locked row gets its 503 within three seconds.
	idleTimeout      = "60s"    // longer than a mail server may take, see email-service
	firstPause       = 250 * time.Millisecond
	longestPause     = 5 * time.Second
)

// LimitLockWait makes the statements after it in a transaction wait for a lock for a
// moment only. It is for writes that many events share: one locked row delays them all.
const LimitLockWait = `SELECT set_config('lock_timeout', '200ms', true)`

// Open returns the pool of a database that answers and has the schemas. It waits for
// the database, and for the locks that migrations need, until ctx ends. Replicas may
// start at once: one of them migrates while the others wait.
func Open(ctx context.Context, cfg Database, log *slog.Logger, schemas ...Schema) (*pgxpool.Pool, error) {
	return open(ctx, cfg, log, func(pool *pgxpool.Pool) error { return migrate(ctx, pool, log, schemas...) })
}

// OpenExisting is Open for a program that must not migrate, such as a command: a migration
// creates the tables that a running restore is about to create, and breaks it. OpenExisting
// changes nothing. It returns an error that says what to do unless the database has all
// migrations of the schemas, their tables, and their primary keys. Later migrations are
// accepted, since this release works with them.
//
// A restore creates primary keys after it has filled the tables, so no table is read that
// is still to be filled. Other indexes and foreign keys may be missing for a moment more.
func OpenExisting(ctx context.Context, cfg Database, log *slog.Logger, schemas ...Schema) (*pgxpool.Pool, error) {
	return open(ctx, cfg, log, func(pool *pgxpool.Pool) error { return requireMigrated(ctx, pool, schemas) })
}

// open returns the pool of a database that answers and for which prepare returns no error.
func open(ctx context.Context, cfg Database, log *slog.Logger, prepare func(*pgxpool.Pool) error) (*pgxpool.Pool, error) {
	pc, err := pgxpool.ParseConfig(cfg.DatabaseURL.Reveal())
	if err != nil {
		return nil, errors.New("read DATABASE_URL: malformed") // err could show the password
	}
	pc.MaxConns = cfg.DatabaseMaxConns
	params := pc.ConnConfig.RuntimeParams
	params["statement_timeout"] = statementTimeout
	params["lock_timeout"] = lockTimeout
	params["idle_in_transaction_session_timeout"] = idleTimeout
	params["timezone"] = "UTC"
	pc.ConnConfig.ConnectTimeout = 5 * time.Second
	pc.ConnConfig.Tracer = newOutageTracer(log)

	pool, err := pgxpool.NewWithConfig(ctx, pc)
	if err != nil {
		return nil, fmt.Errorf("open database: %w", err)
	}
	if err := await(ctx, pool); err != nil {
		pool.Close()
		return nil, err
	}
	if err := prepare(pool); err != nil {
		pool.Close()
		return nil, err
	}
	return pool, nil
}

// await waits until the database answers. The tracer of the pool logs that it does not.
func await(ctx context.Context, pool *pgxpool.Pool) error {
	for pause := firstPause; ; pause = min(2*pause, longestPause) {
		err := pool.Ping(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for the database: %w", err)
		case <-time.After(pause):
		}
	}
}

// Querier is a pool, a transaction, or the connection of one.
type Querier interface {
	Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error)
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
	SendBatch(ctx context.Context, b *pgx.Batch) pgx.BatchResults
}
