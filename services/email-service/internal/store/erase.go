package store

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/headgate/headgate/services/email-service/internal/mail"
)

// lockUser keeps a mail from being queued while its user is erased.
const lockUser = `SELECT pg_advisory_xact_lock(hashtextextended($1, 0))`

// Erase implements mail.Store.
func (s *Store) Erase(ctx context.Context, userID string, at time.Time) error {
	const remember = `
		INSERT INTO deleted_users (user_id, deleted_at)
		VALUES ($1, $2)
		ON CONFLICT (user_id) DO NOTHING`
	const erase = `
		UPDATE messages
		SET recipient = '', last_error = '', event = NULL, next_attempt_at = NULL, updated_at = $2,
			status = CASE WHEN status IN ('sent', 'failed') THEN status ELSE $3 END
		WHERE user_id = $1`
	batch := &pgx.Batch{}
	batch.Queue(lockUser, userID)
	batch.Queue(remember, userID, at)
	batch.Queue(erase, userID, at, mail.StatusSuppressed)
	if err := s.db.SendBatch(ctx, batch).Close(); err != nil {
		return fmt.Errorf("erase deliveries: %w", err)
	}
	return nil
}
