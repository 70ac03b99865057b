package store

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/services/auth-service/internal/account"
)

func queueToken(batch *pgx.Batch, t account.OneTimeToken) {
	const query = `
		INSERT INTO one_time_tokens (hash, purpose, account_id, email, created_at, expires_at)
		VALUES (@hash, @purpose, @account_id, @email, @created_at, @expires_at)`
	batch.Queue(query, pgx.StrictNamedArgs{
		"hash": t.Hash, "purpose": t.Purpose, "account_id": t.AccountID, "email": t.Email,
		"created_at": t.CreatedAt, "expires_at": t.ExpiresAt,
	})
}

// UseToken implements account.Store.
func (s *Store) UseToken(ctx context.Context, purpose string, hash []byte, use func(*account.OneTimeToken, *account.Account) ([]event.Event, error)) error {
	const read = `
		SELECT t.hash, t.purpose, t.account_id::text, t.email, t.created_at, t.expires_at, t.used_at, ` + accountColumns + `
		FROM one_time_tokens t JOIN accounts a ON a.id = t.account_id
		WHERE t.hash = $1 AND t.purpose = $2
		FOR UPDATE`
	const spend = `
		UPDATE one_time_tokens
		SET used_at = $2
		WHERE hash = $1`
	const writeAccount = `
		UPDATE accounts
		SET email_verified = $2, updated_at = $3
		WHERE id = $1`
	err := pgx.BeginFunc(ctx, s.db, func(tx pgx.Tx) error {
		var t account.OneTimeToken
		var usedAt *time.Time
		var owner account.Account
		targets := []any{&t.Hash, &t.Purpose, &t.AccountID, &t.Email, &t.CreatedAt, &t.ExpiresAt, &usedAt}
		err := tx.QueryRow(ctx, read, hash, purpose).Scan(append(targets, scanAccount(&owner)...)...)
		if errors.Is(err, pgx.ErrNoRows) {
			return account.ErrTokenInvalid
		}
		if err != nil {
			return fmt.Errorf("get one-time token: %w", err)
		}
		if usedAt != nil {
			t.UsedAt = *usedAt
		}
		events, err := use(&t, &owner)
		if err != nil {
			return err
		}
		batch := &pgx.Batch{}
		batch.Queue(spend, t.Hash, optional(t.UsedAt))
		batch.Queue(writeAccount, owner.ID, owner.EmailVerified, owner.UpdatedAt)
		if err := s.box.Queue(batch, events...); err != nil {
			return err
		}
		return tx.SendBatch(ctx, batch).Close()
	})
	if err != nil {
		return fmt.Errorf("use one-time token: %w", err)
	}
	return nil
}
