// Package store keeps accounts, sessions and keys in Postgres. A change and its
// events share a transaction.
package store

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

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
	db  *pgxpool.Pool
	box *outbox.Box
}

var _ account.Store = (*Store)(nil)

// New returns a store on db, which must have Schema and outbox.Schema.
func New(db *pgxpool.Pool, box *outbox.Box) *Store { return &Store{db: db, box: box} }

const accountColumns = `a.id::text, a.email, a.email_key, a.email_verified, a.name, a.role, a.status,
	a.password_hash, a.created_at, a.updated_at`

func scanAccount(a *account.Account) []any {
	return []any{
		&a.ID, &a.Email.Address, &a.Email.Key, &a.EmailVerified, &a.Name, &a.Role, &a.Status,
		&a.PasswordHash, &a.CreatedAt, &a.UpdatedAt,
	}
}

// CreateAccount implements account.Store.
func (s *Store) CreateAccount(ctx context.Context, a account.Account, session *account.Session, proof *account.OneTimeToken, events ...event.Event) error {
	const query = `
		INSERT INTO accounts (id, email, email_key, email_verified, name, role, status, password_hash, created_at, updated_at)
		VALUES (@id, @email, @email_key, @email_verified, @name, @role, @status, @password_hash, @created_at, @updated_at)`
	batch := &pgx.Batch{}
	batch.Queue(query, pgx.StrictNamedArgs{
		"id": a.ID, "email": a.Email.Address, "email_key": a.Email.Key, "email_verified": a.EmailVerified,
		"name": a.Name, "role": a.Role, "status": a.Status, "password_hash": a.PasswordHash,
		"created_at": a.CreatedAt, "updated_at": a.UpdatedAt,
	})
	if session != nil {
		queueSession(batch, *session)
	}
	if proof != nil {
		queueToken(batch, *proof)
	}
	err := s.send(ctx, batch, events...)
	if postgres.Violates(err, "accounts_email_key") {
		return account.ErrEmailTaken
	}
	if err != nil {
		return fmt.Errorf("insert account: %w", err)
	}
	return nil
}

// send runs a batch and its events in one transaction and one round trip.
func (s *Store) send(ctx context.Context, batch *pgx.Batch, events ...event.Event) error {
	if err := s.box.Queue(batch, events...); err != nil {
		return err
	}
	// A batch outside a transaction is one: Postgres commits at its end, or
	// nothing of it.
	return s.db.SendBatch(ctx, batch).Close()
}

// AccountByEmail implements account.Store.
func (s *Store) AccountByEmail(ctx context.Context, key string) (account.Account, error) {
	const query = `SELECT ` + accountColumns + ` FROM accounts a WHERE a.email_key = $1`
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

// HasAdmin implements account.Store.
func (s *Store) HasAdmin(ctx context.Context) (bool, error) {
	const query = `SELECT EXISTS (SELECT FROM accounts WHERE role = 'admin')`
	var exists bool
	if err := s.db.QueryRow(ctx, query).Scan(&exists); err != nil {
		return false, fmt.Errorf("look for an administrator: %w", err)
	}
	return exists, nil
}

// Record implements account.Store.
func (s *Store) Record(ctx context.Context, events ...event.Event) error {
	if err := s.send(ctx, &pgx.Batch{}, events...); err != nil {
		return fmt.Errorf("record events: %w", err)
	}
	return nil
}

// optional stores a zero time as NULL.
func optional(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}
