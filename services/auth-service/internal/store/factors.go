package store

import (
	"context"
	"encoding/hex"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/headgate/headgate/services/auth-service/internal/account"
)

const factorColumns = `f.id::text, f.account_id::text, f.kind, f.name, f.secret, f.lookup, f.last_step,
	f.proved, f.created_at, f.confirmed_at, f.last_used_at`

func scanFactor(row pgx.CollectableRow) (account.Factor, error) {
	var f account.Factor
	var lookup []byte
	var confirmed, used *time.Time
	err := row.Scan(&f.ID, &f.AccountID, &f.Kind, &f.Name, &f.Secret, &lookup, &f.LastStep, &f.Proved, &f.CreatedAt, &confirmed, &used)
	f.Lookup = string(lookup)
	if confirmed != nil {
		f.ConfirmedAt = *confirmed
	}
	if used != nil {
		f.LastUsedAt = *used
	}
	return f, err
}

// nullTime returns nil for a zero time, which is stored as NULL.
func nullTime(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}

// queueFactors stores the changes to an account's factors and recovery codes. A TOTP secret
// never changes: Seals may have sealed it anew since it was read.
func queueFactors(batch *pgx.Batch, before, after account.Change) {
	const write = `
		INSERT INTO factors AS f (id, account_id, kind, name, secret, lookup, last_step, proved, created_at, confirmed_at, last_used_at)
		VALUES (@id, @account_id, @kind, @name, @secret, @lookup, @last_step, @proved, @created_at, @confirmed_at, @last_used_at)
		ON CONFLICT (id) DO UPDATE
		SET name = excluded.name, secret = CASE excluded.kind WHEN 'totp' THEN f.secret ELSE excluded.secret END, last_step = excluded.last_step, proved = excluded.proved,
			confirmed_at = excluded.confirmed_at, last_used_at = excluded.last_used_at`
	const remove = `DELETE FROM factors WHERE id = $1`
	for _, f := range before.Factors {
		if !slices.ContainsFunc(after.Factors, func(kept account.Factor) bool { return kept.ID == f.ID }) {
			batch.Queue(remove, f.ID)
		}
	}
	for _, f := range after.Factors {
		if slices.Contains(before.Factors, f) {
			continue
		}
		var lookup []byte
		if f.Lookup != "" {
			lookup = []byte(f.Lookup)
		}
		batch.Queue(write, pgx.StrictNamedArgs{
			"id": f.ID, "account_id": f.AccountID, "kind": f.Kind, "name": f.Name, "secret": f.Secret, "lookup": lookup,
			"last_step": f.LastStep, "proved": f.Proved, "created_at": f.CreatedAt, "confirmed_at": nullTime(f.ConfirmedAt), "last_used_at": nullTime(f.LastUsedAt),
		})
	}
	queueCodes(batch, after.Account.ID, before.RecoveryCodes, after.RecoveryCodes)
}

func queueCodes(batch *pgx.Batch, accountID string, before, after []string) {
	const add = `INSERT INTO recovery_codes (hash, account_id) VALUES (decode($1, 'hex'), $2)`
	const remove = `DELETE FROM recovery_codes WHERE hash = decode($1, 'hex')`
	for _, code := range before {
		if !slices.Contains(after, code) {
			batch.Queue(remove, code)
		}
	}
	for _, code := range after {
		if !slices.Contains(before, code) {
			batch.Queue(add, code, accountID)
		}
	}
}

// Factors implements account.Store.
func (s *Store) Factors(ctx context.Context, accountID string) ([]account.Factor, int, error) {
	const query = `
		SELECT ` + factorColumns + `
		FROM factors f
		WHERE f.account_id = $1 AND f.confirmed_at IS NOT NULL
		ORDER BY f.id`
	const count = `SELECT count(*) FROM recovery_codes WHERE account_id = $1`
	rows, err := s.db.Query(ctx, query, accountID)
	if err != nil {
		return nil, 0, fmt.Errorf("list factors: %w", err)
	}
	factors, err := pgx.CollectRows(rows, scanFactor)
	if err != nil {
		return nil, 0, fmt.Errorf("list factors: %w", err)
	}
	var codes int
	if err := s.db.QueryRow(ctx, count, accountID).Scan(&codes); err != nil {
		return nil, 0, fmt.Errorf("count recovery codes: %w", err)
	}
	return factors, codes, nil
}

func scanCode(row pgx.CollectableRow) (string, error) {
	var hash []byte
	err := row.Scan(&hash)
	return hex.EncodeToString(hash), err
}
