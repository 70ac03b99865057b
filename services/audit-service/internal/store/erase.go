package store

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/headgate/headgate/pkg/event"
)

// eraseLock orders erasures and concurrent inserts. An insert takes it shared, so a record
// that it stores with personal data is visible to a later erasure.
const eraseLock = 0x68675f65726173 // "hg_eras"

// personal are the fields of an event's data that identify a person.
var personal = event.Personal()

// erase deletes the personal data of a deleted account from the log, and the origin of
// anonymous actions on the account, which may have been the user's own. The records stay,
// with the ids.
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
