package store

import (
	"context"
	"crypto/sha256"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/headgate/headgate/pkg/postgres"
	"github.com/headgate/headgate/services/auth-service/internal/account"
)

// failureKeys returns the keys that an attempt can count for: the address alone, and
// the address with the network.
func failureKeys(a account.FailedAttempt) (address, pair []byte) {
	one := sha256.Sum256([]byte(a.Kind + "address\x00" + a.EmailKey))
	two := sha256.Sum256([]byte(a.Kind + "pair\x00" + a.EmailKey + "\x00" + a.Network))
	return one[:], two[:]
}

// CountFailedAttempt implements account.Store. The count need not survive a crash of
// Postgres, so the transaction does not wait for the disk.
func (s *Store) CountFailedAttempt(ctx context.Context, a account.FailedAttempt) (account.CountedAttempt, error) {
	const write = `
		INSERT INTO login_failures (key, failures, last_at, blocked_until)
		VALUES ($1, $2, $3, $4)
		ON CONFLICT (key) DO UPDATE
		SET failures = excluded.failures, last_at = excluded.last_at, blocked_until = excluded.blocked_until`
	address, pair := failureKeys(a)
	key, rows := address, map[string]failures{}
	var counted account.CountedAttempt
	err := postgres.Decide(ctx, s.db, readFailures(a, address, pair, &key, rows), func(_ postgres.Querier, batch *pgx.Batch) error {
		row, at := rows[string(key)], s.time()
		// The clock may have been set back since the last attempt.
		if wait := min(row.blockedUntil.Sub(at), account.AttemptDelay(row.failures)); wait > 0 {
			counted = account.CountedAttempt{RetryAfter: wait}
			return nil
		}
		if at.Sub(row.lastAt) > account.FailedAttemptRetention {
			row.failures = 0
		}
		row.failures++
		counted = account.CountedAttempt{Allowed: true, Key: key, Failures: row.failures, At: at}
		batch.Queue(write, key, row.failures, at, at.Add(account.AttemptDelay(row.failures)))
		return nil
	})
	if err != nil {
		return account.CountedAttempt{}, fmt.Errorf("count failed attempt: %w", err)
	}
	return counted, nil
}

type failures struct {
	failures             int
	lastAt, blockedUntil time.Time
}

// readFailures locks the address of an attempt, sets *key to the key that it counts
// for, and fills rows with the counts of both keys.
func readFailures(a account.FailedAttempt, address, pair []byte, key *[]byte, rows map[string]failures) *pgx.Batch {
	// This runs for every address, so that its time does not reveal which have an
	// account.
	const usedByOwner = `
		SELECT EXISTS (
			SELECT FROM accounts a JOIN sessions s ON s.account_id = a.id
			WHERE a.email_key = $1 AND s.network = $2)`
	const read = `
		SELECT key, failures, last_at, COALESCE(blocked_until, last_at)
		FROM login_failures
		WHERE key = ANY($1)`
	batch := &pgx.Batch{}
	batch.Queue(`SELECT set_config('synchronous_commit', 'off', true)`)
	batch.Queue(lockAddress, address)
	batch.Queue(usedByOwner, a.EmailKey, a.Network).QueryRow(func(row pgx.Row) error {
		var isUsed bool
		err := row.Scan(&isUsed)
		if isUsed {
			*key = pair
		}
		return err
	})
	batch.Queue(read, [][]byte{address, pair}).Query(func(found pgx.Rows) error {
		var k []byte
		var f failures
		_, err := pgx.ForEachRow(found, []any{&k, &f.failures, &f.lastAt, &f.blockedUntil}, func() error {
			rows[string(k)] = f
			return nil
		})
		return err
	})
	return batch
}

// UncountFailedAttempt implements account.Store.
func (s *Store) UncountFailedAttempt(ctx context.Context, key []byte, at time.Time) error {
	// The delay belongs to the last failure, which may be another one by now.
	const query = `
		UPDATE login_failures
		SET failures = GREATEST(failures - 1, 0),
			blocked_until = CASE WHEN last_at = $2 THEN NULL ELSE blocked_until END
		WHERE key = $1`
	if _, err := s.db.Exec(ctx, query, key, at); err != nil {
		return fmt.Errorf("uncount failed attempt: %w", err)
	}
	return nil
}

const clearFailedAttempts = `DELETE FROM login_failures WHERE key = $1`

// ClearFailedAttempts implements account.Store.
func (s *Store) ClearFailedAttempts(ctx context.Context, key []byte) error {
	if _, err := s.db.Exec(ctx, clearFailedAttempts, key); err != nil {
		return fmt.Errorf("clear failed attempts: %w", err)
	}
	return nil
}
