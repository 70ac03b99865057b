package store

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/headgate/headgate/services/auth-service/internal/account"
)

// AddCeremony implements account.Store.
func (s *Store) AddCeremony(ctx context.Context, c account.Ceremony) error {
	const query = `
		INSERT INTO ceremonies (hash, account_id, session, expires_at)
		VALUES ($1, $2, $3, $4)`
	if _, err := s.db.Exec(ctx, query, c.Hash, c.AccountID, c.Session, c.ExpiresAt); err != nil {
		return fmt.Errorf("add ceremony: %w", err)
	}
	return nil
}

// TakeCeremony implements account.Store.
func (s *Store) TakeCeremony(ctx context.Context, hash []byte) (account.Ceremony, error) {
	const query = `
		DELETE FROM ceremonies
		WHERE hash = $1
		RETURNING hash, account_id, session, expires_at`
	var c account.Ceremony
	err := s.db.QueryRow(ctx, query, hash).Scan(&c.Hash, &c.AccountID, &c.Session, &c.ExpiresAt)
	if errors.Is(err, pgx.ErrNoRows) {
		return c, account.ErrPasskeyExpired
	}
	if err != nil {
		return c, fmt.Errorf("take ceremony: %w", err)
	}
	return c, nil
}
