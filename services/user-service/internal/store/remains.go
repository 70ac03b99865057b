package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/redis/go-redis/v9"

	"github.com/headgate/headgate/pkg/postgres"
)

// Remains counts what db and the cache in client have about a user.
func Remains(ctx context.Context, db *postgres.Pool, client redis.UniversalClient, userID string) (map[string]int, error) {
	const query = `
		SELECT
			(SELECT count(*) FROM profiles WHERE user_id = $1 AND (deleted_at IS NULL OR (email, name, bio, locale, timezone, avatar_url, avatar) <> ('', '', '', '', '', '', ''))),
			(SELECT count(*) FROM exports WHERE user_id = $1),
			(SELECT count(*) FROM avatars WHERE user_id = $1)`
	var profiles, exports, avatars, cached int
	if err := db.QueryRow(ctx, query, userID).Scan(&profiles, &exports, &avatars); err != nil {
		return nil, fmt.Errorf("count what is left of a user: %w", err)
	}
	data, err := client.Get(ctx, keyPrefix+userID).Bytes()
	if err != nil && !errors.Is(err, redis.Nil) {
		return nil, fmt.Errorf("read cached profile: %w", err)
	}
	var e entry
	if len(data) > 0 && (json.Unmarshal(data, &e) != nil || e.Profile != nil) {
		cached = 1
	}
	return map[string]int{"profiles": profiles, "exports": exports, "avatars": avatars, "cached profiles": cached}, nil
}
