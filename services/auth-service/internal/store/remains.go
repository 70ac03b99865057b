package store

import (
	"context"
	"fmt"

	"github.com/headgate/headgate/pkg/postgres"
)

// Remains counts what db has about a user.
func Remains(ctx context.Context, db *postgres.Pool, userID string) (map[string]int, error) {
	const query = `
		SELECT
			(SELECT count(*) FROM accounts WHERE id = $1),
			(SELECT count(*) FROM sessions WHERE account_id = $1),
			(SELECT count(*) FROM factors WHERE account_id = $1) + (SELECT count(*) FROM recovery_codes WHERE account_id = $1),
			(SELECT count(*) FROM one_time_tokens WHERE account_id = $1) + (SELECT count(*) FROM mail_requests WHERE account_id = $1),
			(SELECT count(*) FROM challenges WHERE account_id = $1),
			(SELECT count(*) FROM known_networks WHERE account_id = $1)`
	var accounts, sessions, factors, links, challenges, networks int
	if err := db.QueryRow(ctx, query, userID).Scan(&accounts, &sessions, &factors, &links, &challenges, &networks); err != nil {
		return nil, fmt.Errorf("count what is left of a user: %w", err)
	}
	return map[string]int{
		"accounts": accounts, "sessions": sessions, "factors and recovery codes": factors, "links": links,
		"sign-ins in progress": challenges, "known networks": networks,
	}, nil
}
