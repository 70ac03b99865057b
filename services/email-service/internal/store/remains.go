package store

import (
	"context"
	"fmt"

	"github.com/headgate/headgate/pkg/postgres"
)

// Remains counts what db has about a user. A record that a mail was sent, without its address,
// says nothing about a person.
func Remains(ctx context.Context, db *postgres.Pool, userID string) (map[string]int, error) {
	const query = `
		SELECT count(*)
		FROM messages
		WHERE user_id = $1 AND (recipient <> '' OR last_error <> '' OR event IS NOT NULL)`
	var messages int
	if err := db.QueryRow(ctx, query, userID).Scan(&messages); err != nil {
		return nil, fmt.Errorf("count what is left of a user: %w", err)
	}
	return map[string]int{"messages": messages}, nil
}
