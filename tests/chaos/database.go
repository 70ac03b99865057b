package main

import (
	"context"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"

	"github.com/jackc/pgx/v5"
)

// walLimit lets the files of a database fit on a small disk.
var walLimit = []string{`ALTER SYSTEM SET max_wal_size = '64MB'`, `ALTER SYSTEM SET min_wal_size = '32MB'`, reload}

const reload = `SELECT pg_reload_conf()`

// databaseClock replaces the functions that tell the time by ones that add an offset.
const databaseClock = `
	SET allow_system_table_mods = on;
	CREATE SCHEMA chaos;
	CREATE FUNCTION chaos.now() RETURNS timestamptz STABLE PARALLEL SAFE LANGUAGE internal AS 'now';
	CREATE FUNCTION chaos.clock_timestamp() RETURNS timestamptz VOLATILE PARALLEL SAFE LANGUAGE internal AS 'clock_timestamp';
	CREATE OR REPLACE FUNCTION pg_catalog.now() RETURNS timestamptz STABLE PARALLEL SAFE LANGUAGE sql
		AS $$ SELECT chaos.now() + coalesce(current_setting('chaos.ahead', true), '0')::interval $$;
	CREATE OR REPLACE FUNCTION pg_catalog.clock_timestamp() RETURNS timestamptz VOLATILE PARALLEL SAFE LANGUAGE sql
		AS $$ SELECT chaos.clock_timestamp() + coalesce(current_setting('chaos.ahead', true), '0')::interval $$`

// prepareDatabases prepares the databases for the faults of this run.
func (s *stack) prepareDatabases(ctx context.Context) error {
	for _, db := range s.databases {
		if db.small {
			if err := db.execute(ctx, walLimit...); err != nil {
				return err
			}
		}
		if s.needs.clocks {
			if err := db.execute(ctx, databaseClock); err != nil {
				return err
			}
		}
	}
	return nil
}

// setClock makes the clock of the database wrong by the offset, for example 1h, in every
// session.
func (s *server) setClock(ctx context.Context, offset string) error {
	// A session must know the name before the setting can be stored.
	return s.execute(ctx, `SET chaos.ahead = '0'`, `ALTER SYSTEM SET chaos.ahead = '`+offset+`'`, reload)
}

// The databases of a server: services use the first one, maintenance the second.
const (
	serviceDatabase     = "postgres"
	maintenanceDatabase = "template1"
	copyDatabase        = "chaos_copy"
)

// execute runs statements one by one in the services' database.
func (s *server) execute(ctx context.Context, statements ...string) error {
	return s.executeIn(ctx, serviceDatabase, statements...)
}

func (s *server) executeIn(ctx context.Context, database string, statements ...string) error {
	address, err := url.Parse(s.url)
	if err != nil {
		return fmt.Errorf("connect to %s: %w", s.name, err)
	}
	address.Path = database
	config, err := pgx.ParseConfig(address.String())
	if err != nil {
		return fmt.Errorf("connect to %s: %w", s.name, err)
	}
	config.DefaultQueryExecMode = pgx.QueryExecModeSimpleProtocol // Several statements in one text.
	conn, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		return fmt.Errorf("connect to %s: %w", s.name, err)
	}
	defer conn.Close(context.WithoutCancel(ctx))
	for _, statement := range statements {
		if _, err := conn.Exec(ctx, statement); err != nil {
			return fmt.Errorf("execute in %s: %w", s.name, err)
		}
	}
	return nil
}

// disconnect ends all sessions of the services' database and admits no new ones.
const (
	closeDatabase = `ALTER DATABASE ` + serviceDatabase + ` ALLOW_CONNECTIONS false`
	disconnect    = `SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = '` + serviceDatabase + `'`
	openDatabase  = `ALTER DATABASE ` + serviceDatabase + ` ALLOW_CONNECTIONS true`
	forgetCopy    = `DROP DATABASE IF EXISTS ` + copyDatabase + ` WITH (FORCE)`
)

// copyLive copies the database inside the server, as a dump does. Sessions end.
func (s *server) copyLive(ctx context.Context) error {
	return s.executeIn(ctx, maintenanceDatabase, forgetCopy, closeDatabase, disconnect,
		`CREATE DATABASE `+copyDatabase+` TEMPLATE `+serviceDatabase, openDatabase)
}

// restoreLive replaces the database by its copy: the server goes on, the database is
// another one.
func (s *server) restoreLive(ctx context.Context) error {
	return s.replaceDatabase(ctx, `ALTER DATABASE `+copyDatabase+` RENAME TO `+serviceDatabase)
}

// recreate replaces the database by an empty one.
func (s *server) recreate(ctx context.Context) error {
	return s.replaceDatabase(ctx, `CREATE DATABASE `+serviceDatabase)
}

func (s *server) replaceDatabase(ctx context.Context, create string) error {
	return s.executeIn(ctx, maintenanceDatabase, closeDatabase, disconnect, `DROP DATABASE `+serviceDatabase, create, openDatabase)
}

// copyFiles copies the files of the stopped server and starts it again.
func (s *server) copyFiles(ctx context.Context) error {
	return s.stopped(ctx, func(data string) error { return copyFolder(ctx, data, s.fileCopy()) })
}

// restoreFiles replaces the files of the server by the copy.
func (s *server) restoreFiles(ctx context.Context) error {
	return s.stopped(ctx, func(data string) error { return copyFolder(ctx, s.fileCopy(), data) })
}

func (s *server) fileCopy() string { return s.opts.Dir + "-copy" }

// stopped calls f with the data folder while the server is stopped.
func (s *server) stopped(ctx context.Context, f func(data string) error) error {
	if err := s.end(ctx, syscall.SIGINT); err != nil {
		return err
	}
	if err := f(filepath.Join(s.opts.Dir, "data")); err != nil {
		return err
	}
	return s.start(ctx)
}

// copyFolder replaces a folder by a copy of another, with owners and permissions.
func copyFolder(ctx context.Context, from, to string) error {
	if err := os.RemoveAll(to); err != nil {
		return fmt.Errorf("remove %s: %w", to, err)
	}
	if out, err := exec.CommandContext(ctx, "cp", "-a", from, to).CombinedOutput(); err != nil {
		return fmt.Errorf("copy %s: %w: %s", from, err, out)
	}
	return nil
}
