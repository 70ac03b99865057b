package postgres

import (
	"context"
	"fmt"
	"io/fs"
	"regexp"
	"strings"
)

// rebuildInvalidIndexes mends what an interrupted CREATE INDEX CONCURRENTLY of a migration
// left: its IF NOT EXISTS accepts the invalid index of the first try, which no query uses
// and which enforces nothing.
func (m *migrator) rebuildInvalidIndexes(ctx context.Context, schemas []Schema) error {
	indexes, err := m.invalidIndexes(ctx)
	if err != nil || len(indexes) == 0 {
		return err
	}
	created, err := createdIndexes(schemas)
	if err != nil {
		return err
	}
	for _, index := range indexes {
		switch {
		case !created[index.original]:
			m.log.WarnContext(ctx, "invalid index found that no migration creates; leaving it", "index", index.name)
			continue
		case index.building:
			m.log.InfoContext(ctx, "index is being built; not waiting for it", "index", index.name)
			continue
		}
		m.log.WarnContext(ctx, "invalid index found; rebuilding", "index", index.name)
		if _, err := m.db.ExecContext(ctx, index.mend); err != nil {
			return fmt.Errorf("%s: %w", index.name, err)
		}
	}
	return nil
}

// invalidIndex is an index with the statement that rebuilds it, or drops it if an
// interrupted REINDEX left it beside the original.
type invalidIndex struct {
	name, original, mend string
	building             bool // an index of its table, or one that this role cannot see, is being built
}

func (m *migrator) invalidIndexes(ctx context.Context) ([]invalidIndex, error) {
	// The progress of another role's build has no relid, unless this role may read it.
	const query = `
		SELECT c.relname, regexp_replace(c.relname, '_cc(new|old)[0-9]*$', ''), format(
			CASE WHEN c.relname ~ '_cc(new|old)[0-9]*$'
				THEN 'DROP INDEX CONCURRENTLY IF EXISTS %I.%I'
				ELSE 'REINDEX INDEX CONCURRENTLY %I.%I'
			END, n.nspname, c.relname) AS mend,
			EXISTS (
				SELECT FROM pg_stat_progress_create_index p
				WHERE p.datname = current_database() AND (p.relid = i.indrelid OR p.relid IS NULL))
		FROM pg_index i
		JOIN pg_class c ON c.oid = i.indexrelid
		JOIN pg_namespace n ON n.oid = c.relnamespace
		WHERE NOT i.indisvalid AND c.relkind = 'i' AND n.nspname = current_schema()
			AND pg_has_role(c.relowner, 'USAGE')
		ORDER BY mend`
	rows, err := m.db.QueryContext(ctx, query)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var found []invalidIndex
	for rows.Next() {
		var index invalidIndex
		if err := rows.Scan(&index.name, &index.original, &index.mend, &index.building); err != nil {
			return nil, err
		}
		found = append(found, index)
	}
	return found, rows.Err()
}

var createIndex = regexp.MustCompile(`(?i)\bCREATE(?:\s+UNIQUE)?\s+INDEX\s+CONCURRENTLY\s+(?:IF\s+NOT\s+EXISTS\s+)?(` + identifier + `)`)

// createdIndexes returns the names of the indexes that the migrations create concurrently.
func createdIndexes(schemas []Schema) (map[string]bool, error) {
	names := map[string]bool{}
	for _, schema := range schemas {
		files, err := fs.Glob(schema.Files, "*.sql")
		if err != nil {
			return nil, err
		}
		for _, file := range files {
			text, err := fs.ReadFile(schema.Files, file)
			if err != nil {
				return nil, err
			}
			for _, match := range createIndex.FindAllSubmatch(text, -1) {
				names[unquote(string(match[1]))] = true
			}
		}
	}
	return names, nil
}

// identifier matches the name of a table or an index in a statement.
const identifier = `"(?:[^"]|"")+"|\w+`

// unquote returns the name that an SQL identifier stands for.
func unquote(name string) string {
	if quoted, ok := strings.CutPrefix(name, `"`); ok {
		return strings.ReplaceAll(strings.TrimSuffix(quoted, `"`), `""`, `"`)
	}
	return strings.ToLower(name)
}
