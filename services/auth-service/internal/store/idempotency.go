package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/headgate/headgate/services/auth-service/internal/account"
)

// ReserveOnce implements account.Store.
func (s *Store) ReserveOnce(ctx context.Context, o account.Once, now time.Time) (string, error) {
	const reserve = `
		INSERT INTO idempotency_keys AS k (key, fingerprint, reserved_at)
		VALUES ($1, $2, $3)
		ON CONFLICT (key) DO UPDATE
		SET fingerprint = excluded.fingerprint, reserved_at = excluded.reserved_at, answer = NULL
		WHERE k.reserved_at <= $4 OR k.answer IS NULL AND k.reserved_at <= $5`
	const read = `
		SELECT fingerprint, COALESCE(answer, '')
		FROM idempotency_keys
		WHERE key = $1`
	tag, err := s.db.Exec(ctx, reserve, o.Key, o.Fingerprint, now, now.Add(-account.OnceMemory), now.Add(-account.OncePatient))
	if err != nil {
		return "", fmt.Errorf("reserve idempotency key: %w", err)
	}
	if tag.RowsAffected() == 1 {
		return "", nil
	}
	var fingerprint []byte
	var answer string
	err = s.db.QueryRow(ctx, read, o.Key).Scan(&fingerprint, &answer)
	switch {
	case errors.Is(err, pgx.ErrNoRows): // It was released just now.
		return "", account.ErrKeyInProgress
	case err != nil:
		return "", fmt.Errorf("read idempotency key: %w", err)
	case !bytes.Equal(fingerprint, o.Fingerprint):
		return "", account.ErrKeyReused
	case answer == "":
		return "", account.ErrKeyInProgress
	}
	return answer, nil
}

// ReleaseOnce implements account.Store.
func (s *Store) ReleaseOnce(ctx context.Context, key []byte) error {
	const query = `
		DELETE FROM idempotency_keys
		WHERE key = $1 AND answer IS NULL`
	if _, err := s.db.Exec(ctx, query, key); err != nil {
		return fmt.Errorf("release idempotency key: %w", err)
	}
	return nil
}

// queueOnce stores the answer of a request, if it has a key.
func queueOnce(batch *pgx.Batch, o *account.Once) {
	const query = `
		UPDATE idempotency_keys
		SET answer = $2
		WHERE key = $1 AND fingerprint = $3`
	if o != nil {
		batch.Queue(query, o.Key, o.Answer, o.Fingerprint)
	}
}
