package store

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/headgate/headgate/pkg/event"
)

// eraseLock orders erasures against inserts at the same time: an insert holds it
// shared, so what it does not know to be erased is there when the erasure looks.
const eraseLock = 0x68675f65726173 // "hg_eras"

// personal are the members of an event's data that say who somebody is.
var personal = event.Personal()

// erase takes the personal data of a user whose account is gone from the log, and
// from where strangers acted on it, who may have been the user. The facts stay, by
// the ids.
func (s *Store) erase(ctx context.Context, userID string) error {
	const remember = `
		INSERT INTO erased_users (user_id, erased_at)
		VALUES ($1, now())
		ON CONFLICT (user_id) DO NOTHING`
	const eraseData = `
		UPDATE events
		SET data = data - $2::text[]
		WHERE subject_id = $1 AND data ?| $2::text[]`
	const eraseOrigin = `
		UPDATE events
		SET ip = '', user_agent = ''
		WHERE actor_id = $1 AND (ip <> '' OR user_agent <> '')`
	const eraseStrangers = `
		UPDATE events
		SET ip = '', user_agent = ''
		WHERE subject_id = $1 AND actor_id = '' AND (ip <> '' OR user_agent <> '')`
	batch := &pgx.Batch{}
	batch.Queue(`SELECT pg_advisory_xact_lock($1)`, int64(eraseLock))
	batch.Queue(remember, userID)
	batch.Queue(eraseData, userID, personal)
	batch.Queue(eraseOrigin, userID)
	batch.Queue(eraseStrangers, userID)
	if err := s.db.SendBatch(ctx, batch).Close(); err != nil {
		return fmt.Errorf("erase personal data: %w", err)
	}
	return nil
}
