package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/headgate/headgate/services/auth-service/internal/account"
)

// ReserveIdempotencyKey implements account.Store.
func (s *Store) ReserveIdempotencyKey(ctx context.Context, record account.IdempotencyRecord, now time.Time) (string, error) {
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
	tag, err := s.db.Exec(ctx, reserve, record.Key, record.Fingerprints[0], now, now.Add(-account.IdempotencyRetention), now.Add(-account.IdempotencyTimeout))
	if err != nil {
		return "", fmt.Errorf("reserve idempotency key: %w", err)
	}
	if tag.RowsAffected() == 1 {
		return "", nil
	}
	var fingerprint []byte
	var answer string
	err = s.db.QueryRow(ctx, read, record.Key).Scan(&fingerprint, &answer)
	switch {
	case errors.Is(err, pgx.ErrNoRows): // The first request has just failed and released the key.
		return "", account.ErrKeyInProgress
	case err != nil:
		return "", fmt.Errorf("read idempotency key: %w", err)
	case !slices.ContainsFunc(record.Fingerprints, func(f []byte) bool { return bytes.Equal(f, fingerprint) }):
		return "", account.ErrKeyReused
	case answer == "":
		return "", account.ErrKeyInProgress
	}
	return answer, nil
}

// ReleaseIdempotencyKey implements account.Store.
func (s *Store) ReleaseIdempotencyKey(ctx context.Context, key []byte) error {
	const query = `
		DELETE FROM idempotency_keys
		WHERE key = $1 AND answer IS NULL`
	if _, err := s.db.Exec(ctx, query, key); err != nil {
		return fmt.Errorf("release idempotency key: %w", err)
	}
	return nil
}

// queueStoredAnswer stores the answer of a request, if it has a key.
func queueStoredAnswer(batch *pgx.Batch, record *account.IdempotencyRecord) {
	const query = `
		UPDATE idempotency_keys
		SET answer = $2
		WHERE key = $1 AND fingerprint = $3`
	if record != nil {
		batch.Queue(query, record.Key, record.Answer, record.Fingerprints[0])
	}
}
