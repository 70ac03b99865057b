package store

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/headgate/headgate/pkg/token"
	"github.com/headgate/headgate/services/auth-service/internal/account"
)

// retention is how long sessions and links are kept after they expired, so that a client
// that uses one learns why it is refused.
const retention = 30 * 24 * time.Hour

// sweepBatch limits how many rows a statement locks.
const sweepBatch = 1000

// ProvisionalAccounts implements account.Store.
func (s *Store) ProvisionalAccounts(ctx context.Context, created time.Time, after string, limit int) ([]string, error) {
	const query = `
		SELECT id::text
		FROM accounts
		WHERE provisional AND NOT email_verified AND role = 'user' AND status = 'active' AND created_at < $1
			AND id > COALESCE(NULLIF($2, '')::uuid, '00000000-0000-0000-0000-000000000000')
		ORDER BY id
		LIMIT $3`
	return s.ids(ctx, "list provisional accounts", query, created, after, limit)
}

// DueDeletions implements account.Store.
func (s *Store) DueDeletions(ctx context.Context, now time.Time, after string, limit int) ([]string, error) {
	const query = `
		SELECT id::text
		FROM accounts
		WHERE delete_at <= $1 AND id > COALESCE(NULLIF($2, '')::uuid, '00000000-0000-0000-0000-000000000000')
		ORDER BY id
		LIMIT $3`
	return s.ids(ctx, "list due deletions", query, now, after, limit)
}

// OutlivedDeletions implements account.Store. The request has ended all sessions, that of the
// caller among them. Sweep keeps those until the account is deleted.
func (s *Store) OutlivedDeletions(ctx context.Context, after string, limit int) (map[string]time.Time, error) {
	const query = `
		SELECT a.id::text, a.delete_at
		FROM accounts a
		WHERE a.delete_at IS NOT NULL AND a.id > COALESCE(NULLIF($1, '')::uuid, '00000000-0000-0000-0000-000000000000')
			AND EXISTS (
				SELECT FROM sessions s
				WHERE s.account_id = a.id AND (` + liveSession + ` OR s.revoked_reason IS DISTINCT FROM $3 AND s.created_at > (
					SELECT max(d.revoked_at) FROM sessions d WHERE d.account_id = a.id AND d.revoked_reason = $3)))
		ORDER BY a.id
		LIMIT $2`
	rows, err := s.db.Query(ctx, query, after, limit, account.ReasonDeleted)
	if err != nil {
		return nil, fmt.Errorf("list outlived deletions: %w", err)
	}
	found := map[string]time.Time{}
	_, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (id string, err error) {
		var deleteAt time.Time
		err = row.Scan(&id, &deleteAt)
		found[id] = deleteAt
		return id, err
	})
	if err != nil {
		return nil, fmt.Errorf("list outlived deletions: %w", err)
	}
	return found, nil
}

// ids returns what a query for ids of accounts finds.
func (s *Store) ids(ctx context.Context, operation, query string, arguments ...any) ([]string, error) {
	rows, err := s.db.Query(ctx, query, arguments...)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", operation, err)
	}
	ids, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return nil, fmt.Errorf("%s: %w", operation, err)
	}
	return ids, nil
}

// Sweep implements account.Store.
func (s *Store) Sweep(ctx context.Context, now time.Time) error {
	for _, expired := range []struct {
		query string
		age   time.Duration
	}{
		{`DELETE FROM sessions WHERE ctid = ANY (ARRAY(SELECT ctid FROM sessions WHERE expires_at < $1 AND account_id NOT IN (SELECT id FROM accounts WHERE delete_at IS NOT NULL) LIMIT $2 FOR UPDATE SKIP LOCKED))`, retention},
		{`DELETE FROM one_time_tokens WHERE ctid = ANY (ARRAY(SELECT ctid FROM one_time_tokens WHERE expires_at < $1 LIMIT $2 FOR UPDATE SKIP LOCKED))`, retention},
		{`DELETE FROM revocations WHERE ctid = ANY (ARRAY(SELECT ctid FROM revocations WHERE revoked_at < $1 LIMIT $2 FOR UPDATE SKIP LOCKED))`, 2 * token.MaxLifetime},
		{`DELETE FROM login_failures WHERE ctid = ANY (ARRAY(SELECT ctid FROM login_failures WHERE last_at < $1 LIMIT $2 FOR UPDATE SKIP LOCKED))`, account.FailedAttemptRetention},
		{`DELETE FROM consecutive_failures WHERE ctid = ANY (ARRAY(SELECT ctid FROM consecutive_failures WHERE last_at < $1 AND failures < 10 AND NOT has_account LIMIT $2 FOR UPDATE SKIP LOCKED))`, account.FailedAttemptRetention},
		{`DELETE FROM consecutive_failures WHERE ctid = ANY (ARRAY(SELECT ctid FROM consecutive_failures WHERE last_at < $1 LIMIT $2 FOR UPDATE SKIP LOCKED))`, account.ConsecutiveFailureRetention},
		{`DELETE FROM known_networks WHERE ctid = ANY (ARRAY(SELECT ctid FROM known_networks WHERE known_at < $1 LIMIT $2 FOR UPDATE SKIP LOCKED))`, account.KnownNetworkRetention},
		{`DELETE FROM idempotency_keys WHERE ctid = ANY (ARRAY(SELECT ctid FROM idempotency_keys WHERE reserved_at < $1 LIMIT $2 FOR UPDATE SKIP LOCKED))`, account.IdempotencyRetention},
		{`DELETE FROM challenges WHERE ctid = ANY (ARRAY(SELECT ctid FROM challenges WHERE expires_at < $1 LIMIT $2 FOR UPDATE SKIP LOCKED))`, time.Hour},
		// The previous release keeps its ceremonies in this table.
		{`DELETE FROM ceremonies WHERE ctid = ANY (ARRAY(SELECT ctid FROM ceremonies WHERE expires_at < $1 LIMIT $2 FOR UPDATE SKIP LOCKED))`, time.Hour},
		{`DELETE FROM finished_ceremonies WHERE ctid = ANY (ARRAY(SELECT ctid FROM finished_ceremonies WHERE expires_at < $1 LIMIT $2 FOR UPDATE SKIP LOCKED))`, time.Hour},
		{`DELETE FROM mails_asked WHERE ctid = ANY (ARRAY(SELECT ctid FROM mails_asked WHERE asked_at < $1 LIMIT $2 FOR UPDATE SKIP LOCKED))`, 24 * time.Hour},
	} {
		for {
			tag, err := s.db.Exec(ctx, expired.query, now.Add(-expired.age), sweepBatch)
			if err != nil {
				return fmt.Errorf("sweep: %w", err)
			}
			if tag.RowsAffected() < sweepBatch {
				break
			}
		}
	}
	return nil
}
