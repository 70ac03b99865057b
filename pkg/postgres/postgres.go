// Package postgres opens a service's database: it waits until the database answers,
// applies the migrations, and returns the pool. Commands open it without migrating it.
// The package has no tables of its own.
package postgres

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
)

const (
	statementTimeout = "15s"
	lockTimeout      = "2500ms" // A request that meets a locked row gets its 503 within three seconds.
	idleTimeout      = "60s"    // longer than a mail server may take, see email-service
	firstPause       = 250 * time.Millisecond
	longestPause     = 5 * time.Second
	existingTimeout  = time.Minute
)

// LimitLockWait makes the statements after it in a transaction wait for a lock for a
// moment only. It is for writes that many events share: one locked row delays them all.
const LimitLockWait = `SELECT set_config('lock_timeout', '200ms', true)`

// Open returns the pool of a database that answers and has the schemas. It waits for
// the database, and for the locks that migrations need, until ctx ends. Replicas may
// start at once: one of them migrates while the others wait.
//
// The address may be that of a pooler, in session or in transaction mode. Open finds that
// out by itself. Migrations then use DATABASE_DIRECT_URL, if it is set.
func Open(ctx context.Context, cfg Database, log *slog.Logger, schemas ...Schema) (*Pool, error) {
	return open(ctx, cfg, log, func(pool *Pool) error { return migrate(ctx, pool, log, schemas...) })
}

// OpenExisting is Open for a program that must not migrate, such as a command: a migration
// creates the tables that a running restore is about to create, and breaks it. OpenExisting
// changes nothing, and waits for a minute at most. It returns an error that says what to do
// unless the database has all migrations of the schemas, their tables, and their primary keys.
// Later migrations are accepted, since this release works with them.
//
// A restore creates primary keys after it has filled the tables, so no table is read that
// is still to be filled. Other indexes and foreign keys may be missing for a moment more.
func OpenExisting(ctx context.Context, cfg Database, log *slog.Logger, schemas ...Schema) (*Pool, error) {
	ctx, cancel := context.WithTimeout(ctx, existingTimeout)
	defer cancel()
	return open(ctx, cfg, log, func(pool *Pool) error { return requireMigrated(ctx, pool, schemas) })
}

// open returns the pool of a database that answers and for which prepare returns no error.
func open(ctx context.Context, cfg Database, log *slog.Logger, prepare func(*Pool) error) (*Pool, error) {
	pool, err := connect(ctx, cfg, log)
	if err != nil {
		return nil, err
	}
	if err := prepare(pool); err != nil {
		pool.Close()
		return nil, err
	}
	return pool, nil
}

// connect returns the pool of a database that has answered.
func connect(ctx context.Context, cfg Database, log *slog.Logger) (*Pool, error) {
	pc, err := cfg.parse("DATABASE_URL", cfg.DatabaseURL)
	if err != nil {
		return nil, err
	}
	pc.MaxConns = cfg.DatabaseMaxConns
	pc.ConnConfig.Tracer = newOutageTracer(log)
	session, err := cfg.session(pc.ConnConfig)
	if err != nil {
		return nil, err
	}
	pooled := session != pc.ConnConfig
	if !pooled {
		maps.Copy(pc.ConnConfig.RuntimeParams, limits)
		err := await(ctx, func() (err error) {
			pooled, err = isPooler(ctx, pc.ConnConfig)
			return err
		})
		if err != nil {
			return nil, err
		}
		if pooled {
			removeLimits(pc.ConnConfig)
			session = nil
		}
	}
	if pooled {
		pc.ConnConfig.DefaultQueryExecMode = pgx.QueryExecModeCacheDescribe
	}
	pool, err := pgxpool.NewWithConfig(ctx, pc)
	if err != nil {
		return nil, fmt.Errorf("open database: %w", err)
	}
	if err := await(ctx, func() error { return pool.Ping(ctx) }); err != nil {
		pool.Close()
		return nil, err
	}
	log.InfoContext(ctx, "database connected", "pooler", pooled, "direct_url", pooled && session != nil)
	return &Pool{Pool: pool, pooled: pooled, session: session}, nil
}

// session returns the configuration of connections that keep their session: those of
// DATABASE_DIRECT_URL if it is set, which says that DATABASE_URL leads to a pooler.
func (d Database) session(pool *pgx.ConnConfig) (*pgx.ConnConfig, error) {
	if d.DatabaseDirectURL == "" {
		return pool, nil
	}
	direct, err := d.parse("DATABASE_DIRECT_URL", d.DatabaseDirectURL)
	if err != nil {
		return nil, err
	}
	direct.ConnConfig.Tracer = pool.Tracer
	return direct.ConnConfig, nil
}

// await waits until f returns no error, as when the database answers. The tracer of the
// connections logs the errors.
func await(ctx context.Context, f func() error) error {
	for pause := firstPause; ; pause = min(2*pause, longestPause) {
		err := f()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for the database: %w", errors.Join(ctx.Err(), err))
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
