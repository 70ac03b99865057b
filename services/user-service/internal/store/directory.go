package store

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/headgate/headgate/pkg/cursor"
	"github.com/headgate/headgate/services/user-service/internal/profile"
)

// terms are the words of the name and the address, one a line. Postgres folds both sides of a
// comparison: to lower case in any script, and to one form of the Greek sigma, which otherwise
// depends on where it is in a word.
const (
	terms = `translate(lower(name COLLATE "und-x-icu"), ' ς', E'\nσ') || E'\n' || translate(lower(email COLLATE "und-x-icu"), 'ς', 'σ')`
	// vector is the expression of the index profiles_directory.
	vector = `array_to_tsvector(array_remove(string_to_array(` + terms + `, E'\n'), ''))`
)

// scanned is how many of the newest profiles are looked at before the index is. A word that many
// profiles have is found among them, while the index would return all of those to be sorted. A word
// that few have is not, but then the index returns few.
const scanned = 4000

const (
	window = `deleted_at IS NULL AND (created_at, user_id) < (@created, @id) AND created_at >= @since AND created_at < @until`
	newest = ` ORDER BY created_at DESC, user_id DESC LIMIT `

	listQuery = `SELECT ` + columns + ` FROM profiles WHERE ` + window + newest + `@limit`

	findNewest = `
		SELECT ` + columns + `
		FROM (SELECT * FROM profiles WHERE ` + window + newest + `@scanned) AS profiles
		WHERE E'\n' || ` + terms + ` LIKE ALL (ARRAY (
			SELECT E'%\n' || translate(lower(word COLLATE "und-x-icu"), 'ς', 'σ') || '%' FROM unnest(@words::text[]) AS word))` + newest + `@limit`

	// Materialized, and without the window inside, so that Postgres cannot walk through all
	// profiles by their age instead. It would: it does not know the values when it plans a
	// statement for the sixth time.
	findIndexed = `
		WITH found AS MATERIALIZED (
			SELECT user_id, created_at, deleted_at
			FROM profiles
			WHERE deleted_at IS NULL AND ` + vector + ` @@ translate(lower(@query::text COLLATE "und-x-icu"), 'ς', 'σ')::tsquery
		)
		SELECT ` + columns + `
		FROM profiles
		WHERE user_id IN (SELECT user_id FROM found WHERE ` + window + newest + `@limit)` + newest + `@limit`
)

// List implements profile.Store.
func (s *Store) List(ctx context.Context, search profile.Search, after cursor.Position, limit int) ([]profile.Profile, error) {
	created, id := after.Bound()
	arguments := pgx.StrictNamedArgs{
		"created": created, "id": id, "since": search.CreatedAfter, "until": search.CreatedBefore, "limit": limit,
	}
	if search.CreatedBefore.IsZero() {
		arguments["until"] = created.Add(time.Microsecond) // The cursor's bound is enough.
	}
	words := strings.Fields(search.Q)
	if len(words) == 0 {
		return s.list(ctx, !search.Current, listQuery, arguments)
	}
	arguments["words"], arguments["scanned"] = escaped(words), scanned
	found, err := s.list(ctx, !search.Current, findNewest, arguments)
	if err != nil || len(found) == limit {
		return found, err
	}
	delete(arguments, "words")
	delete(arguments, "scanned")
	arguments["query"] = prefixes(words)
	return s.list(ctx, !search.Current, findIndexed, arguments)
}

func (s *Store) list(ctx context.Context, mayLag bool, query string, arguments pgx.StrictNamedArgs) ([]profile.Profile, error) {
	var profiles []profile.Profile
	err := s.read(ctx, mayLag, func(ctx context.Context, db querier) error {
		rows, err := db.Query(ctx, query, arguments)
		if err != nil {
			return err
		}
		profiles, err = pgx.CollectRows(rows, scan)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("list profiles: %w", err)
	}
	return profiles, nil
}

// escaped returns the words as LIKE reads them literally.
func escaped(words []string) []string {
	literally := strings.NewReplacer(`\`, `\\`, `%`, `\%`, `_`, `\_`)
	made := make([]string, len(words))
	for i, word := range words {
		made[i] = literally.Replace(word)
	}
	return made
}

// prefixes returns the tsquery for lexemes that begin with the words, all of which must match.
func prefixes(words []string) string {
	literally := strings.NewReplacer(`\`, `\\`, `'`, `''`)
	made := make([]string, len(words))
	for i, word := range words {
		made[i] = `'` + literally.Replace(word) + `':*`
	}
	return strings.Join(made, " & ")
}
