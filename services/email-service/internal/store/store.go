// Package store keeps deliveries in Postgres, in the table messages. A change and its
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
	"github.com/headgate/headgate/pkg/problem"
	"github.com/headgate/headgate/services/email-service/internal/mail"
)

//go:embed migrations/*.sql
var migrations embed.FS

// Schema returns the migrations of this store.
func Schema() postgres.Schema { return postgres.NewSchema("email", migrations, "migrations") }

// Store implements mail.Store.
type Store struct {
	db  *pgxpool.Pool
	box *outbox.Box
	now func() time.Time
}

var _ mail.Store = (*Store)(nil)

// New returns a store on db, which must have Schema and outbox.Schema.
func New(db *pgxpool.Pool, box *outbox.Box, now func() time.Time) *Store {
	return &Store{db: db, box: box, now: now}
}

const columns = `id::text, event_id::text, template, user_id, recipient, message_id, request_id, status, attempts,
	last_error, created_at, updated_at, sent_at, next_attempt_at`

func scan(row pgx.CollectableRow) (mail.Delivery, error) {
	var d mail.Delivery
	var sentAt, next *time.Time
	err := row.Scan(&d.ID, &d.EventID, &d.Template, &d.UserID, &d.To, &d.MessageID, &d.RequestID, &d.Status, &d.Attempts,
		&d.LastError, &d.CreatedAt, &d.UpdatedAt, &sentAt, &next)
	if sentAt != nil {
		d.SentAt = *sentAt
	}
	if next != nil {
		d.NextAttemptAt = *next
	}
	return d, err
}

func one(rows pgx.Rows, err error) (mail.Delivery, error) {
	if err != nil {
		return mail.Delivery{}, err
	}
	return pgx.CollectExactlyOneRow(rows, scan)
}

// Queue implements mail.Store.
func (s *Store) Queue(ctx context.Context, d mail.Delivery) (mail.Delivery, error) {
	const insert = `
		INSERT INTO messages (id, event_id, template, user_id, recipient, message_id, request_id, status, created_at, updated_at)
		SELECT @id, @event_id, @template, @user_id, @recipient, @message_id, @request_id, @status, @created_at, @updated_at
		WHERE NOT EXISTS (SELECT FROM deleted_users WHERE user_id = @user_id)
		ON CONFLICT ON CONSTRAINT messages_event_template_key DO NOTHING`
	const read = `SELECT ` + columns + ` FROM messages WHERE event_id = $1 AND template = $2`
	batch := &pgx.Batch{}
	batch.Queue(lockUser, d.UserID)
	batch.Queue(insert, pgx.StrictNamedArgs{
		"id": d.ID, "event_id": d.EventID, "template": d.Template, "user_id": d.UserID, "recipient": d.To,
		"message_id": d.MessageID, "request_id": d.RequestID, "status": d.Status,
		"created_at": d.CreatedAt, "updated_at": d.UpdatedAt,
	})
	if err := s.db.SendBatch(ctx, batch).Close(); err != nil {
		return mail.Delivery{}, fmt.Errorf("queue delivery: %w", err)
	}
	stored, err := one(s.db.Query(ctx, read, d.EventID, d.Template))
	if errors.Is(err, pgx.ErrNoRows) {
		return mail.Delivery{}, mail.ErrAccountDeleted
	}
	if err != nil {
		return mail.Delivery{}, fmt.Errorf("get queued delivery: %w", err)
	}
	return stored, nil
}

// Send implements mail.Store.
//
// If this process dies between the mail server's answer and the commit, the message is
// sent again: SMTP cannot close that gap, so it is kept short. The commit does not wait
// for the disk. That is safe if this process dies, and costs a second mail only if
// Postgres itself crashes at that moment. A connection to Postgres that breaks during
// the SMTP session costs one as well: the answer cannot be stored, and the attempt
// counts as failed.
func (s *Store) Send(ctx context.Context, id string, send func(context.Context) error, sent func(mail.Delivery) event.Event) error {
	const begin = `UPDATE messages SET status = 'sending', attempts = attempts + 1, updated_at = $2 WHERE id = $1 AND status <> 'sent'`
	const lock = `SELECT ` + columns + ` FROM messages WHERE id = $1 FOR UPDATE`
	const finish = `UPDATE messages SET status = 'sent', last_error = '', sent_at = $2, updated_at = $2,
		event = NULL, next_attempt_at = NULL WHERE id = $1`
	if _, err := s.db.Exec(ctx, begin, id, s.now()); err != nil {
		return fmt.Errorf("start attempt: %w", err)
	}
	tx, err := s.db.Begin(ctx)
	if err != nil {
		return fmt.Errorf("start attempt: %w", err)
	}
	defer tx.Rollback(context.WithoutCancel(ctx)) //nolint:errcheck // After a commit there is nothing to roll back.
	d, err := one(tx.Query(ctx, lock, id))
	if err != nil {
		return fmt.Errorf("lock delivery: %w", err)
	}
	if d.Status == mail.StatusSent {
		return nil
	}
	if err := send(ctx); err != nil {
		return err
	}
	// The mail has been sent. A deadline must not keep that from being stored.
	ctx = context.WithoutCancel(ctx)
	batch := &pgx.Batch{}
	batch.Queue(`SELECT set_config('synchronous_commit', 'off', true)`)
	batch.Queue(finish, id, s.now())
	if err := s.box.Queue(batch, sent(d)); err != nil {
		return err
	}
	if err := errors.Join(tx.SendBatch(ctx, batch).Close(), tx.Commit(ctx)); err != nil {
		return fmt.Errorf("record that the mail was sent: %w", err)
	}
	return nil
}

// Filter selects deliveries; an empty field selects all.
type Filter struct{ To, Template, Status string }

// ErrNotFound says that no message has the id.
var ErrNotFound = problem.New(problem.NotFound, "message_not_found", "Message not found.")

// List returns up to limit deliveries that filter selects, newest first, starting after
// the one with the id after.
func (s *Store) List(ctx context.Context, filter Filter, after string, limit int) ([]mail.Delivery, error) {
	const query = `
		SELECT ` + columns + `
		FROM messages
		WHERE (@after = '' OR id < NULLIF(@after, '')::uuid)
			AND (@recipient = '' OR recipient = @recipient)
			AND (@template = '' OR template = @template)
			AND (@status = '' OR status = @status)
		ORDER BY id DESC
		LIMIT @limit`
	rows, err := s.db.Query(ctx, query, pgx.StrictNamedArgs{
		"after": after, "recipient": filter.To, "template": filter.Template, "status": filter.Status, "limit": limit,
	})
	if err != nil {
		return nil, fmt.Errorf("list deliveries: %w", err)
	}
	messages, err := pgx.CollectRows(rows, scan)
	if err != nil {
		return nil, fmt.Errorf("list deliveries: %w", err)
	}
	return messages, nil
}

// Get returns one delivery, or ErrNotFound.
func (s *Store) Get(ctx context.Context, id string) (mail.Delivery, error) {
	d, err := one(s.db.Query(ctx, `SELECT `+columns+` FROM messages WHERE id = $1`, id))
	if errors.Is(err, pgx.ErrNoRows) {
		return d, ErrNotFound
	}
	if err != nil {
		return d, fmt.Errorf("get delivery: %w", err)
	}
	return d, nil
}
