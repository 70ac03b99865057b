// Package store keeps the messages in Postgres. A change and its events share a
// transaction.
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

func scan(row pgx.CollectableRow) (mail.Message, error) {
	var m mail.Message
	var sentAt, next *time.Time
	err := row.Scan(&m.ID, &m.EventID, &m.Template, &m.UserID, &m.To, &m.MessageID, &m.RequestID, &m.Status, &m.Attempts,
		&m.LastError, &m.CreatedAt, &m.UpdatedAt, &sentAt, &next)
	if sentAt != nil {
		m.SentAt = *sentAt
	}
	if next != nil {
		m.NextAttemptAt = *next
	}
	return m, err
}

func one(rows pgx.Rows, err error) (mail.Message, error) {
	if err != nil {
		return mail.Message{}, err
	}
	return pgx.CollectExactlyOneRow(rows, scan)
}

// Queue implements mail.Store.
func (s *Store) Queue(ctx context.Context, m mail.Message) (mail.Message, error) {
	const insert = `
		INSERT INTO messages (id, event_id, template, user_id, recipient, message_id, request_id, status, created_at, updated_at)
		SELECT @id, @event_id, @template, @user_id, @recipient, @message_id, @request_id, @status, @created_at, @updated_at
		WHERE NOT EXISTS (SELECT FROM deleted_users WHERE user_id = @user_id)
		ON CONFLICT ON CONSTRAINT messages_event_template_key DO NOTHING`
	const read = `SELECT ` + columns + ` FROM messages WHERE event_id = $1 AND template = $2`
	batch := &pgx.Batch{}
	batch.Queue(lockUser, m.UserID)
	batch.Queue(insert, pgx.StrictNamedArgs{
		"id": m.ID, "event_id": m.EventID, "template": m.Template, "user_id": m.UserID, "recipient": m.To,
		"message_id": m.MessageID, "request_id": m.RequestID, "status": m.Status,
		"created_at": m.CreatedAt, "updated_at": m.UpdatedAt,
	})
	if err := s.db.SendBatch(ctx, batch).Close(); err != nil {
		return mail.Message{}, fmt.Errorf("queue message: %w", err)
	}
	stored, err := one(s.db.Query(ctx, read, m.EventID, m.Template))
	if errors.Is(err, pgx.ErrNoRows) {
		return mail.Message{}, mail.ErrNobody
	}
	if err != nil {
		return mail.Message{}, fmt.Errorf("get queued message: %w", err)
	}
	return stored, nil
}

// Send implements mail.Store.
//
// Between the mail server's answer and the commit, the death of this process
// makes the message be sent again: no protocol can close that gap, so it is kept
// short. The commit does not wait for the disk, which outlives this process's
// death and costs a second mail only if Postgres itself crashes just then. A
// connection to Postgres that breaks during the dialogue costs one, too: the
// answer cannot be noted and the attempt counts as failed.
func (s *Store) Send(ctx context.Context, id string, send func(context.Context) error, sent func(mail.Message) event.Event) error {
	const begin = `UPDATE messages SET status = 'sending', attempts = attempts + 1, updated_at = $2 WHERE id = $1 AND status <> 'sent'`
	const lock = `SELECT ` + columns + ` FROM messages WHERE id = $1 FOR UPDATE`
	const finish = `UPDATE messages SET status = 'sent', last_error = '', sent_at = $2, updated_at = $2,
		event = NULL, next_attempt_at = NULL WHERE id = $1`
	if _, err := s.db.Exec(ctx, begin, id, s.now()); err != nil {
		return fmt.Errorf("begin to send: %w", err)
	}
	tx, err := s.db.Begin(ctx)
	if err != nil {
		return fmt.Errorf("begin to send: %w", err)
	}
	defer tx.Rollback(context.WithoutCancel(ctx)) //nolint:errcheck // After a commit there is nothing to roll back.
	m, err := one(tx.Query(ctx, lock, id))
	if err != nil {
		return fmt.Errorf("lock message: %w", err)
	}
	if m.Status == mail.Sent {
		return nil
	}
	if err := send(ctx); err != nil {
		return err
	}
	// From here on the mail is out: what is left must not fail for the sake of a
	// deadline.
	ctx = context.WithoutCancel(ctx)
	batch := &pgx.Batch{}
	batch.Queue(`SELECT set_config('synchronous_commit', 'off', true)`)
	batch.Queue(finish, id, s.now())
	if err := s.box.Queue(batch, sent(m)); err != nil {
		return err
	}
	if err := errors.Join(tx.SendBatch(ctx, batch).Close(), tx.Commit(ctx)); err != nil {
		return fmt.Errorf("note that the message was sent: %w", err)
	}
	return nil
}

// Filter chooses messages; empty members choose all.
type Filter struct{ To, Template, Status string }

// ErrNotFound says that there is no message with the id.
var ErrNotFound = problem.New(problem.NotFound, "message_not_found", "There is no such message.")

// List returns up to limit messages that filter chooses, newest first, after
// the one with the id after.
func (s *Store) List(ctx context.Context, filter Filter, after string, limit int) ([]mail.Message, error) {
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
		return nil, fmt.Errorf("list messages: %w", err)
	}
	messages, err := pgx.CollectRows(rows, scan)
	if err != nil {
		return nil, fmt.Errorf("list messages: %w", err)
	}
	return messages, nil
}

// Get returns one message, or ErrNotFound.
func (s *Store) Get(ctx context.Context, id string) (mail.Message, error) {
	m, err := one(s.db.Query(ctx, `SELECT `+columns+` FROM messages WHERE id = $1`, id))
	if errors.Is(err, pgx.ErrNoRows) {
		return m, ErrNotFound
	}
	if err != nil {
		return m, fmt.Errorf("get message: %w", err)
	}
	return m, nil
}
