package store

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/headgate/headgate/pkg/postgres"
	"github.com/headgate/headgate/services/auth-service/internal/account"
)

// StartChallenge implements account.Store.
func (s *Store) StartChallenge(ctx context.Context, ch account.Challenge, in account.PasswordLogin) error {
	const query = `
		INSERT INTO challenges (hash, account_id, device_name, attempts, expires_at)
		VALUES ($1, $2, $3, 0, $4)`
	err := s.signIn(ctx, in, func(_ postgres.Querier, batch *pgx.Batch) error {
		batch.Queue(query, ch.Hash, ch.AccountID, ch.DeviceName, ch.ExpiresAt)
		return nil
	})
	if err != nil {
		return fmt.Errorf("start challenge: %w", err)
	}
	return nil
}

// ChallengeOwner implements account.Store.
func (s *Store) ChallengeOwner(ctx context.Context, hash []byte, now time.Time) (account.Account, error) {
	const query = `
		SELECT ` + accountColumns + `
		FROM challenges c JOIN accounts a ON a.id = c.account_id
		WHERE c.hash = $1 AND c.expires_at > $2`
	var owner account.Account
	err := s.db.QueryRow(ctx, query, hash, now).Scan(scanAccount(&owner)...)
	if errors.Is(err, pgx.ErrNoRows) {
		return account.Account{}, account.ErrChallengeExpired
	}
	if err != nil {
		return account.Account{}, fmt.Errorf("get challenge: %w", err)
	}
	return owner, nil
}

// UseChallenge implements account.Store.
func (s *Store) UseChallenge(ctx context.Context, hash []byte, decide func(*account.Challenge, *account.Change) error) error {
	const find = `SELECT account_id::text FROM challenges WHERE hash = $1`
	const read = `
		SELECT hash, account_id::text, device_name, attempts, expires_at
		FROM challenges
		WHERE hash = $1`
	const write = `UPDATE challenges SET attempts = $2 WHERE hash = $1`
	const remove = `DELETE FROM challenges WHERE hash = $1`
	err := s.db.Transact(ctx, func(tx pgx.Tx) error {
		var owner string
		err := tx.QueryRow(ctx, find, hash).Scan(&owner)
		if errors.Is(err, pgx.ErrNoRows) {
			return account.ErrChallengeExpired
		}
		if err != nil {
			return err
		}
		// Every transaction that uses a challenge locks its account first.
		var ch account.Challenge
		err = s.changeAccount(ctx, tx, owner, account.SessionLock{Surplus: true}, func(c *account.Change) error {
			err := tx.QueryRow(ctx, read, hash).Scan(&ch.Hash, &ch.AccountID, &ch.DeviceName, &ch.Attempts, &ch.ExpiresAt)
			if errors.Is(err, pgx.ErrNoRows) {
				return account.ErrChallengeExpired
			}
			if err != nil {
				return err
			}
			return decide(&ch, c)
		})
		if errors.Is(err, account.ErrNotFound) {
			return account.ErrChallengeExpired
		}
		if err != nil {
			return err
		}
		if ch.Done {
			_, err = tx.Exec(ctx, remove, hash)
		} else {
			_, err = tx.Exec(ctx, write, hash, ch.Attempts)
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("use challenge: %w", err)
	}
	return nil
}
