// Package store keeps accounts, sessions and signing keys in Postgres. Every change
// shares a transaction with its events.
package store

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype/zeronull"

	"github.com/headgate/headgate/pkg/cursor"
	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/pkg/outbox"
	"github.com/headgate/headgate/pkg/postgres"
	"github.com/headgate/headgate/services/auth-service/internal/account"
)

//go:embed migrations/*.sql
var migrations embed.FS

// Schema returns the migrations of this store.
func Schema() postgres.Schema { return postgres.NewSchema("auth", migrations, "migrations") }

// Store implements account.Store.
type Store struct {
	Limits account.Limits // set before the store is used

	db  *postgres.Pool
	box *outbox.Box
	now func() time.Time
}

var _ account.Store = (*Store)(nil)

// New returns a store on db, which must have Schema and outbox.Schema. now is the time of
// the database: that of a postgres.Clock, since replicas compare what others have stored.
func New(db *postgres.Pool, box *outbox.Box, now func() time.Time) *Store {
	return &Store{db: db, box: box, now: now}
}

// time returns the current time in the precision of Postgres. Whatever is decided under a
// lock takes it after the lock was obtained.
func (s *Store) time() time.Time { return s.now().UTC().Truncate(time.Microsecond) }

const accountColumns = `a.id::text, a.email, a.email_key, a.email_verified, a.name, a.role, a.status,
	a.mfa_enabled, a.password_hash, a.password_proved, a.provisional, a.created_at, a.updated_at, a.delete_at, a.version`

func scanAccount(a *account.Account) []any {
	return []any{
		&a.ID, &a.Email.Address, &a.Email.Key, &a.EmailVerified, &a.Name, &a.Role, &a.Status,
		&a.MFAEnabled, &a.PasswordHash, &a.PasswordProved, &a.Provisional, &a.CreatedAt, &a.UpdatedAt,
		(*zeronull.Timestamptz)(&a.DeleteAt), &a.Version,
	}
}

func accountArgs(a account.Account) pgx.StrictNamedArgs {
	return pgx.StrictNamedArgs{
		"id": a.ID, "email": a.Email.Address, "email_key": a.Email.Key, "email_verified": a.EmailVerified,
		"name": a.Name, "role": a.Role, "status": a.Status, "password_hash": a.PasswordHash, "mfa_enabled": a.MFAEnabled,
		"password_proved": a.PasswordProved, "provisional": a.Provisional,
		"created_at": a.CreatedAt, "updated_at": a.UpdatedAt, "delete_at": zeronull.Timestamptz(a.DeleteAt), "version": a.Version,
	}
}

// send executes a batch and stores events in one transaction and one round trip.
func (s *Store) send(ctx context.Context, batch *pgx.Batch, events ...event.Event) error {
	if err := s.box.Queue(batch, events...); err != nil {
		return err
	}
	// A batch outside a transaction is a transaction of its own.
	return s.db.SendBatch(ctx, batch).Close()
}

// Account implements account.Store.
func (s *Store) Account(ctx context.Context, id string) (account.Account, error) {
	return s.account(ctx, `SELECT `+accountColumns+` FROM accounts a WHERE a.id = $1`, id)
}

// AccountByEmail implements account.Store.
func (s *Store) AccountByEmail(ctx context.Context, key string) (account.Account, error) {
	return s.account(ctx, `SELECT `+accountColumns+` FROM accounts a WHERE a.email_key = $1`, key)
}

func (s *Store) account(ctx context.Context, query string, key any) (account.Account, error) {
	var a account.Account
	err := s.db.QueryRow(ctx, query, key).Scan(scanAccount(&a)...)
	if errors.Is(err, pgx.ErrNoRows) {
		return account.Account{}, account.ErrNotFound
	}
	if err != nil {
		return account.Account{}, fmt.Errorf("get account: %w", err)
	}
	return a, nil
}

// escapeLike escapes the wildcards of LIKE.
var escapeLike = strings.NewReplacer(`\`, `\\`, `%`, `\%`, `_`, `\_`)

// Accounts implements account.Store.
func (s *Store) Accounts(ctx context.Context, f account.Filter, after cursor.Position, limit int) ([]account.Account, error) {
	const query = `
		SELECT ` + accountColumns + `
		FROM accounts a
		WHERE ($1 = '' OR a.email ILIKE $2 OR a.name ILIKE $2)
			AND ($3 = '' OR a.role = $3)
			AND ($4 = '' OR a.status = $4)
			AND (a.created_at, a.id) < ($5, $6)
		ORDER BY a.created_at DESC, a.id DESC
		LIMIT $7`
	created, id := after.Bound()
	rows, err := s.db.Query(ctx, query, f.Query, "%"+escapeLike.Replace(f.Query)+"%", f.Role, f.Status, created, id, limit)
	if err != nil {
		return nil, fmt.Errorf("list accounts: %w", err)
	}
	accounts, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (account.Account, error) {
		var a account.Account
		err := row.Scan(scanAccount(&a)...)
		return a, err
	})
	if err != nil {
		return nil, fmt.Errorf("list accounts: %w", err)
	}
	return accounts, nil
}

// HasAdmin implements account.Store.
func (s *Store) HasAdmin(ctx context.Context) (bool, error) {
	const query = `SELECT EXISTS (SELECT FROM accounts WHERE role = 'admin')`
	var exists bool
	if err := s.db.QueryRow(ctx, query).Scan(&exists); err != nil {
		return false, fmt.Errorf("find administrator: %w", err)
	}
	return exists, nil
}

// HighestBcryptCost implements account.Store.
func (s *Store) HighestBcryptCost(ctx context.Context) (int, error) {
	const query = `
		SELECT COALESCE(max(substr(password_hash, 5, 2)), '0')::int
		FROM accounts
		WHERE password_hash LIKE '$2%'`
	var cost int
	if err := s.db.QueryRow(ctx, query).Scan(&cost); err != nil {
		return 0, fmt.Errorf("find highest bcrypt cost: %w", err)
	}
	return cost, nil
}

// HashParameters implements account.Store. It finds each value in the index by the one
// before it: there are few, in many rows.
func (s *Store) HashParameters(ctx context.Context) ([]string, error) {
	const parameters = `split_part(password_hash, '$', 2) || '$' || split_part(password_hash, '$', 3)`
	const next = `
		SELECT ` + parameters + ` AS found
		FROM accounts
		WHERE (password_hash LIKE '$pbkdf2%' OR password_hash LIKE '$fbscrypt%')`
	const query = `
		WITH RECURSIVE kinds AS (
			(` + next + ` ORDER BY 1 LIMIT 1)
			UNION ALL
			SELECT (` + next + ` AND ` + parameters + ` > kinds.found ORDER BY 1 LIMIT 1)
			FROM kinds
			WHERE kinds.found IS NOT NULL
		)
		SELECT found
		FROM kinds
		WHERE found IS NOT NULL
		LIMIT 1000`
	rows, err := s.db.Query(ctx, query)
	if err != nil {
		return nil, fmt.Errorf("find hash parameters: %w", err)
	}
	found, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return nil, fmt.Errorf("find hash parameters: %w", err)
	}
	return found, nil
}

// Record implements account.Store.
func (s *Store) Record(ctx context.Context, events ...event.Event) error {
	if err := s.send(ctx, &pgx.Batch{}, events...); err != nil {
		return fmt.Errorf("record events: %w", err)
	}
	return nil
}

// RecordNothing implements account.Store. A commit waits for the disk if it has written
// something, and this message goes to no table.
func (s *Store) RecordNothing(ctx context.Context) error {
	const query = `SELECT pg_logical_emit_message(true, 'headgate', '')`
	if _, err := s.db.Exec(ctx, query); err != nil {
		return fmt.Errorf("record nothing: %w", err)
	}
	return nil
}
