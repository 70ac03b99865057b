package store

import (
	"context"
	"fmt"

	"github.com/headgate/headgate/pkg/postgres"
)

// Remains counts the records of db with personal data of a user. The others stay, with the id of
// an account that no longer exists: the log is complete.
func Remains(ctx context.Context, db *postgres.Pool, userID string) (map[string]int, error) {
	const query = `
		SELECT
			(SELECT count(*) FROM events WHERE subject_id = $1 AND data ?| $2::text[]),
			(SELECT count(*) FROM events WHERE actor_id = $1 AND (ip <> '' OR user_agent <> '')),
			(SELECT count(*) FROM events WHERE subject_id = $1 AND actor_id = '' AND (ip <> '' OR user_agent <> ''))`
	var data, origins, strangers int
	if err := db.QueryRow(ctx, query, userID, personal).Scan(&data, &origins, &strangers); err != nil {
		return nil, fmt.Errorf("count what is left of a user: %w", err)
	}
	return map[string]int{"records with personal data": data, "records with an address or a user agent": origins + strangers}, nil
}
