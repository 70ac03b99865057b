// Package postgres opens a service's database: it waits until the database answers,
// applies the migrations, and returns the pool. It has no tables of its own.
package postgres

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/url"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/lock"

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

// Schema is a set of migrations with a version table of its own, so that a
// package can bring its tables into the database of any service. Migrations
// only go forward, and the previous release must work with the new tables.
type Schema struct {
	Name  string // names the version table
	Files fs.FS  // *.sql as goose reads them, at the root
}

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
	statementTimeout = "15s"
	idleTimeout      = "60s" // longer than a mail server may take, see email-service
	firstPause       = 250 * time.Millisecond
	longestPause     = 5 * time.Second
)

// Open returns the pool of a database that answers and has the schemas. It
// waits for the database until ctx ends. Replicas may start at once: one of them
// migrates under an advisory lock while the others wait.
func Open(ctx context.Context, cfg Database, log *slog.Logger, schemas ...Schema) (*pgxpool.Pool, error) {
	pc, err := pgxpool.ParseConfig(cfg.DatabaseURL.Reveal())
	if err != nil {
		return nil, errors.New("read DATABASE_URL: malformed") // err could show the password
	}
	pc.MaxConns = cfg.DatabaseMaxConns
	params := pc.ConnConfig.RuntimeParams
	params["statement_timeout"] = statementTimeout
	params["idle_in_transaction_session_timeout"] = idleTimeout
	params["timezone"] = "UTC"
	pc.ConnConfig.ConnectTimeout = 5 * time.Second

	pool, err := pgxpool.NewWithConfig(ctx, pc)
	if err != nil {
		return nil, fmt.Errorf("open database: %w", err)
	}
	if err := await(ctx, pool, log); err != nil {
		pool.Close()
		return nil, err
	}
	for _, schema := range schemas {
		if err := Migrate(ctx, pool, schema); err != nil {
			pool.Close()
			return nil, err
		}
	}
	return pool, nil
}

func await(ctx context.Context, pool *pgxpool.Pool, log *slog.Logger) error {
	for pause := firstPause; ; pause = min(2*pause, longestPause) {
		err := pool.Ping(ctx)
		if err == nil {
			return nil
		}
		log.WarnContext(ctx, "waiting for the database", "error", err.Error())
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for the database: %w", err)
		case <-time.After(pause):
		}
	}
}

// Migrate applies the migrations of schema that the database lacks.
func Migrate(ctx context.Context, pool *pgxpool.Pool, schema Schema) error {
	locker, err := lock.NewPostgresSessionLocker(lock.WithLockTimeout(1, 120))
	if err != nil {
		return fmt.Errorf("migrate %s: %w", schema.Name, err)
	}
	db := stdlib.OpenDBFromPool(pool)
	defer db.Close() // Closes the view, not the pool.
	provider, err := goose.NewProvider(goose.DialectPostgres, db, schema.Files,
		goose.WithSessionLocker(locker), goose.WithTableName("schema_"+schema.Name),
		goose.WithDisableGlobalRegistry(true), goose.WithSlog(slog.New(slog.DiscardHandler)))
	if err != nil {
		return fmt.Errorf("migrate %s: %w", schema.Name, err)
	}
	if _, err := provider.Up(ctx); err != nil {
		return fmt.Errorf("migrate %s: %w", schema.Name, err)
	}
	return nil
}

// Querier is a pool, a transaction, or the connection of one.
type Querier interface {
	Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error)
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
	SendBatch(ctx context.Context, b *pgx.Batch) pgx.BatchResults
}
