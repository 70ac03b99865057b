package store

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/headgate/headgate/services/auth-service/internal/account"
)

// TokenOwner implements account.Store.
func (s *Store) TokenOwner(ctx context.Context, purpose account.LinkPurpose, hash []byte) (account.OneTimeToken, account.Account, error) {
	const query = `
		SELECT t.hash, t.purpose, t.account_id::text, t.email, t.created_at, t.expires_at, t.unproved, ` + accountColumns + `
		FROM one_time_tokens t JOIN accounts a ON a.id = t.account_id
		WHERE t.hash = $1 AND t.purpose = $2 AND t.used_at IS NULL`
	var t account.OneTimeToken
	var a account.Account
	columns := append([]any{&t.Hash, &t.Purpose, &t.AccountID, &t.Email, &t.CreatedAt, &t.ExpiresAt, &t.Unproved}, scanAccount(&a)...)
	err := s.db.QueryRow(ctx, query, hash, purpose).Scan(columns...)
	if errors.Is(err, pgx.ErrNoRows) {
		return account.OneTimeToken{}, account.Account{}, account.ErrTokenInvalid
	}
	if err != nil {
		return account.OneTimeToken{}, account.Account{}, fmt.Errorf("get owner of one-time token: %w", err)
	}
	return t, a, nil
}

// UseToken implements account.Store.
func (s *Store) UseToken(ctx context.Context, purpose account.LinkPurpose, hash []byte, decide func(account.OneTimeToken, *account.Change) error) error {
	const find = `
		SELECT account_id::text
		FROM one_time_tokens
		WHERE hash = $1 AND purpose = $2 AND used_at IS NULL`
	// Every transaction that uses or replaces a token locks its account first.
	const take = `
		DELETE FROM one_time_tokens
		WHERE hash = $1 AND used_at IS NULL
		RETURNING hash, purpose, account_id::text, email, created_at, expires_at, unproved`
	err := s.db.Transact(ctx, func(tx pgx.Tx) error {
		var owner string
		err := tx.QueryRow(ctx, find, hash, purpose).Scan(&owner)
		if errors.Is(err, pgx.ErrNoRows) {
			return account.ErrTokenInvalid
		}
		if err != nil {
			return err
		}
		err = s.changeAccount(ctx, tx, owner, account.SessionLock{All: true}, func(c *account.Change) error {
			var t account.OneTimeToken
			err := tx.QueryRow(ctx, take, hash).Scan(&t.Hash, &t.Purpose, &t.AccountID, &t.Email, &t.CreatedAt, &t.ExpiresAt, &t.Unproved)
			if errors.Is(err, pgx.ErrNoRows) {
				return account.ErrTokenInvalid // A concurrent request has used it.
			}
			if err != nil {
				return err
			}
			return decide(t, c)
		})
		if errors.Is(err, account.ErrNotFound) {
			return account.ErrTokenInvalid
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("use one-time token: %w", err)
	}
	return nil
}

func queueToken(batch *pgx.Batch, t account.OneTimeToken) {
	const query = `
		INSERT INTO one_time_tokens (hash, purpose, account_id, email, created_at, expires_at, unproved)
		VALUES (@hash, @purpose, @account_id, @email, @created_at, @expires_at, @unproved)`
	batch.Queue(query, pgx.StrictNamedArgs{
		"hash": t.Hash, "purpose": t.Purpose, "account_id": t.AccountID, "email": t.Email,
		"created_at": t.CreatedAt, "expires_at": t.ExpiresAt, "unproved": t.Unproved,
	})
}
