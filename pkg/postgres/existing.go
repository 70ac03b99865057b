package postgres

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/pressly/goose/v3"
)

// What a person does about a database that is not ready for a command.
const (
	startService = "start this release of the service, which migrates its database; if the database is being restored, wait until the restore has ended"
	awaitRestore = "wait until the restore has ended; if none is running, the last one failed: restore again"
)

// requireMigrated returns an error unless the database has all migrations of the schemas
// and what they have created.
func requireMigrated(ctx context.Context, db Querier, schemas []Schema) error {
	for _, schema := range schemas {
		applied, err := appliedVersions(ctx, db, schema)
		if err != nil {
			return err
		}
		created, err := schema.createdBy(applied)
		if err != nil {
			return fmt.Errorf("read migrations of %s: %w", schema.Name, err)
		}
		if err := requireTables(ctx, db, created.tables); err != nil {
			return err
		}
		// Last, because a service must not be started while its database is incomplete.
		if created.pending != "" {
			return fmt.Errorf("database is older than this release: migration %s of the schema %s is missing; %s", created.pending, schema.Name, startService)
		}
	}
	return nil
}

// appliedVersions returns the versions of the migrations that the database has.
func appliedVersions(ctx context.Context, db Querier, schema Schema) ([]int64, error) {
	table := schema.versionTable()
	rows, err := db.Query(ctx, `SELECT version_id FROM `+pgx.Identifier{table}.Sanitize()+` WHERE is_applied`)
	var versions []int64
	if err == nil {
		versions, err = pgx.CollectRows(rows, pgx.RowTo[int64])
	}
	fault, _ := errors.AsType[*pgconn.PgError](err)
	switch {
	case fault != nil && fault.Code == undefinedTable:
		return nil, fmt.Errorf("database is not migrated: table %s is missing; %s", table, startService)
	case Contended(err):
		return nil, fmt.Errorf("database is in use: table %s is locked; if it is being restored, wait until the restore has ended: %w", table, err)
	case err != nil:
		return nil, fmt.Errorf("read %s: %w", table, err)
	case len(versions) == 0: // A migration inserts the first row when it creates the table.
		return nil, fmt.Errorf("database is incomplete: table %s is empty; %s", table, awaitRestore)
	}
	return versions, nil
}

// created is what migrations leave behind.
type created struct {
	tables  map[string]bool // by name: whether the table has a primary key
	pending string          // the first migration that was not applied
}

// createdBy returns what the migrations of the versions have created. A later release may
// have dropped tables of this one, so if it has migrated, only the version table is known.
func (s Schema) createdBy(versions []int64) (created, error) {
	c := created{tables: map[string]bool{}}
	files, err := fs.Glob(s.Files, "*.sql")
	if err != nil {
		return c, err
	}
	var latest int64
	for _, file := range files {
		version, err := goose.NumericComponent(file)
		if err != nil {
			return c, err
		}
		latest = max(latest, version)
		if !slices.Contains(versions, version) {
			if c.pending == "" {
				c.pending = file
			}
			continue
		}
		text, err := fs.ReadFile(s.Files, file)
		if err != nil {
			return c, err
		}
		applyToTables(c.tables, string(text))
	}
	if slices.Max(versions) > latest {
		clear(c.tables)
	}
	c.tables[s.versionTable()] = true
	return c, nil
}

var (
	createTable = regexp.MustCompile(`(?i)\bCREATE\s+(?:UNLOGGED\s+)?TABLE\s+(?:IF\s+NOT\s+EXISTS\s+)?(` + identifier + `)`)
	renameTable = regexp.MustCompile(`(?i)\bALTER\s+TABLE\s+(?:IF\s+EXISTS\s+)?(` + identifier + `)\s+RENAME\s+TO\s+(` + identifier + `)`)
	dropTable   = regexp.MustCompile(`(?i)\bDROP\s+TABLE\s+(?:IF\s+EXISTS\s+)?(` + identifier + `)`)
	primaryKey  = regexp.MustCompile(`(?i)\bPRIMARY\s+KEY\b`)
)

// applyToTables changes the tables as the text of a migration does.
func applyToTables(tables map[string]bool, migration string) {
	for statement := range strings.SplitSeq(comment.ReplaceAllString(migration, ""), ";") {
		if m := createTable.FindStringSubmatch(statement); m != nil {
			tables[unquote(m[1])] = primaryKey.MatchString(statement)
		}
		if m := renameTable.FindStringSubmatch(statement); m != nil {
			tables[unquote(m[2])] = tables[unquote(m[1])]
			delete(tables, unquote(m[1]))
		}
		if m := dropTable.FindStringSubmatch(statement); m != nil {
			delete(tables, unquote(m[1]))
		}
	}
}

// requireTables returns an error unless the tables exist, with their primary keys. It takes
// no lock of a table.
func requireTables(ctx context.Context, db Querier, tables map[string]bool) error {
	const query = `
		SELECT t.name, c.oid IS NULL
		FROM unnest($1::text[], $2::boolean[]) AS t (name, keyed)
		LEFT JOIN pg_class c ON c.oid = to_regclass(quote_ident(t.name)) AND c.relkind IN ('r', 'p')
		WHERE c.oid IS NULL
			OR t.keyed AND NOT EXISTS (SELECT FROM pg_index i WHERE i.indrelid = c.oid AND i.indisprimary)
		ORDER BY c.oid IS NULL DESC, t.name
		LIMIT 1`
	names := slices.Sorted(maps.Keys(tables))
	keyed := make([]bool, len(names))
	for i, name := range names {
		keyed[i] = tables[name]
	}
	var name string
	var missing bool
	switch err := db.QueryRow(ctx, query, names, keyed).Scan(&name, &missing); {
	case errors.Is(err, pgx.ErrNoRows):
		return nil
	case err != nil:
		return fmt.Errorf("look for tables: %w", err)
	case missing:
		return fmt.Errorf("database is incomplete: table %s is missing; %s", name, awaitRestore)
	}
	return fmt.Errorf("database is incomplete: table %s has no primary key yet; %s", name, awaitRestore)
}
