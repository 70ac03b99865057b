package store

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/headgate/headgate/pkg/postgres"
	"github.com/headgate/headgate/services/auth-service/internal/account"
)

// attemptKeys are the keys of the counts that an attempt can belong to.
type attemptKeys struct {
	address []byte // the address alone
	pair    []byte // the address and the network
	device  []byte // the address and a device
	all     []byte // all attempts on the address, in consecutive_failures
}

func keysOf(a account.FailedAttempt) attemptKeys {
	key := func(text string) []byte { return addressHash(a.Kind + text) }
	return attemptKeys{
		address: key("address\x00" + a.EmailKey),
		pair:    key("pair\x00" + a.EmailKey + "\x00" + a.Network),
		device:  key("device\x00" + a.EmailKey + "\x00" + a.Device.ID),
		all:     key("all\x00" + a.EmailKey),
	}
}

// counts are the counts that an attempt belongs to.
type counts struct {
	key          []byte // of the count that delays it
	failures     int
	lastAt       time.Time
	blockedUntil time.Time
	consecutive  int // from all networks since the last success
	hasAccount   bool
}

// CountFailedAttempt implements account.Store. The count need not survive a crash of
// Postgres, so the transaction does not wait for the disk.
func (s *Store) CountFailedAttempt(ctx context.Context, a account.FailedAttempt) (account.CountedAttempt, error) {
	const write = `
		INSERT INTO login_failures (key, failures, last_at, blocked_until)
		VALUES ($1, $2, $3, $4)
		ON CONFLICT (key) DO UPDATE
		SET failures = excluded.failures, last_at = excluded.last_at, blocked_until = excluded.blocked_until`
	const writeAll = `
		INSERT INTO consecutive_failures (key, failures, last_at, has_account)
		VALUES ($1, $2, $3, $4)
		ON CONFLICT (key) DO UPDATE
		SET failures = excluded.failures, last_at = excluded.last_at, has_account = excluded.has_account`
	keys := keysOf(a)
	var c counts
	var counted account.CountedAttempt
	err := postgres.Decide(ctx, s.db, readFailures(a, s.time(), keys, &c), func(_ postgres.Querier, batch *pgx.Batch) error {
		at, c := s.time(), c
		if limit := s.Limits.ConsecutiveFailures; limit > 0 && c.consecutive >= limit && bytes.Equal(c.key, keys.address) {
			counted = account.CountedAttempt{ByMailOnly: true}
			return nil
		}
		// The clock may have been set back since the last attempt.
		if wait := min(c.blockedUntil.Sub(at), account.AttemptDelay(c.failures)); wait > 0 {
			counted = account.CountedAttempt{RetryAfter: wait}
			return nil
		}
		if at.Sub(c.lastAt) > account.FailedAttemptRetention {
			c.failures = 0
		}
		c.failures++
		c.consecutive++
		counted = account.CountedAttempt{
			Allowed: true, Failures: c.failures, Key: slices.Concat(c.key, keys.all), At: at,
			IsLast: c.consecutive == s.Limits.ConsecutiveFailures,
		}
		batch.Queue(write, c.key, c.failures, at, at.Add(account.AttemptDelay(c.failures)))
		batch.Queue(writeAll, keys.all, c.consecutive, at, c.hasAccount)
		return nil
	})
	if err != nil {
		return account.CountedAttempt{}, fmt.Errorf("count failed attempt: %w", err)
	}
	return counted, nil
}

// usedByOwner finds out whether, at $3, the owner of the address $1 has used the network $2.
const usedByOwner = `
	SELECT EXISTS (
			SELECT FROM accounts a JOIN sessions s ON s.account_id = a.id
			WHERE a.email_key = $1 AND s.network = $2 AND ` + sessionOfOwner + `)
		OR EXISTS (
			SELECT FROM accounts a JOIN known_networks n ON n.account_id = a.id
			WHERE a.email_key = $1 AND n.network = $2
				AND n.known_at >= COALESCE(a.password_changed_at, '-infinity'))`

// readFailures locks the address of an attempt at now and fills c with its counts.
func readFailures(a account.FailedAttempt, now time.Time, keys attemptKeys, c *counts) *pgx.Batch {
	// These run for every address, so that the time does not reveal which have an account.
	const signedInBefore = `
		SELECT EXISTS (
			SELECT FROM accounts
			WHERE email_key = $1 AND id::text = $2 AND (password_changed_at IS NULL OR password_changed_at <= $3))`
	const read = `
		SELECT key, failures, last_at, COALESCE(blocked_until, last_at)
		FROM login_failures
		WHERE key = ANY($1)`
	const readAll = `
		SELECT COALESCE((SELECT failures FROM consecutive_failures WHERE key = $1), 0), EXISTS (SELECT FROM accounts WHERE email_key = $2)`
	c.key = keys.address
	use := func(key []byte) func(pgx.Row) error {
		return func(row pgx.Row) error {
			var known bool
			err := row.Scan(&known)
			if known {
				c.key = key
			}
			return err
		}
	}
	batch := &pgx.Batch{}
	batch.Queue(`SELECT set_config('synchronous_commit', 'off', true)`)
	batch.Queue(lockAddress, keys.address)
	batch.Queue(usedByOwner, a.EmailKey, a.Network, now).QueryRow(use(keys.pair))
	batch.Queue(signedInBefore, a.EmailKey, a.Device.AccountID, a.Device.IssuedAt).QueryRow(use(keys.device))
	batch.Queue(read, [][]byte{keys.address, keys.pair, keys.device}).Query(func(found pgx.Rows) error {
		var row counts
		_, err := pgx.ForEachRow(found, []any{&row.key, &row.failures, &row.lastAt, &row.blockedUntil}, func() error {
			if bytes.Equal(row.key, c.key) {
				*c = counts{key: c.key, failures: row.failures, lastAt: row.lastAt, blockedUntil: row.blockedUntil}
			}
			return nil
		})
		return err
	})
	batch.Queue(readAll, keys.all, a.EmailKey).QueryRow(func(row pgx.Row) error { return row.Scan(&c.consecutive, &c.hasAccount) })
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
	const all = `
		UPDATE consecutive_failures
		SET failures = GREATEST(failures - 1, 0)
		WHERE key = $1`
	batch := &pgx.Batch{}
	batch.Queue(query, key[:sha256.Size], at)
	batch.Queue(all, key[sha256.Size:])
	if err := s.db.SendBatch(ctx, batch).Close(); err != nil {
		return fmt.Errorf("uncount failed attempt: %w", err)
	}
	return nil
}

// queueClearAttempts deletes the counts under the key of a CountedAttempt.
func queueClearAttempts(batch *pgx.Batch, key []byte) {
	queueForget(batch, [][]byte{key[:sha256.Size], key[sha256.Size:]})
}

func queueForget(batch *pgx.Batch, keys [][]byte) {
	batch.Queue(`DELETE FROM login_failures WHERE key = ANY($1)`, keys)
	batch.Queue(`DELETE FROM consecutive_failures WHERE key = ANY($1)`, keys)
}

// ClearFailedAttempts implements account.Store.
func (s *Store) ClearFailedAttempts(ctx context.Context, key []byte) error {
	batch := &pgx.Batch{}
	queueClearAttempts(batch, key)
	if err := s.db.SendBatch(ctx, batch).Close(); err != nil {
		return fmt.Errorf("clear failed attempts: %w", err)
	}
	return nil
}

// queueMailProof stores what follows from a proof by mail.
func queueMailProof(batch *pgx.Batch, c account.Change) {
	const know = `
		INSERT INTO known_networks (account_id, network, known_at)
		VALUES ($1, $2, $3)
		ON CONFLICT (account_id, network) DO UPDATE
		SET known_at = excluded.known_at`
	if c.MailProof == nil {
		return
	}
	keys := keysOf(c.MailProof.Attempts)
	batch.Queue(know, c.Account.ID, c.MailProof.Attempts.Network, c.MailProof.At)
	queueForget(batch, [][]byte{keys.address, keys.pair, keys.all})
}
