// Package store keeps deliveries in Postgres, in the table messages. A change and its
// events share a transaction.
package store

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/headgate/headgate/pkg/cursor"
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
	db      *postgres.Pool
	box     *outbox.Box
	now     func() time.Time
	checked string
	sent    sentMails
}

var _ mail.Store = (*Store)(nil)

// New returns a store on db, which must have Schema and outbox.Schema. checked is an SQL
// condition, such as reconcile.CheckedSQL: while it is false, the database may be an older
// copy, which does not know which of its mails were sent, and no mail is sent.
func New(db *postgres.Pool, box *outbox.Box, now func() time.Time, checked string) *Store {
	return &Store{db: db, box: box, now: now, checked: checked}
}

// Checked returns mail.ErrDatabaseUnchecked while the database may be an older copy.
func (s *Store) Checked(ctx context.Context) error {
	var checked bool
	if err := s.db.QueryRow(ctx, `SELECT `+s.checked).Scan(&checked); err != nil {
		return fmt.Errorf("read database check: %w", err)
	}
	if !checked {
		return mail.ErrDatabaseUnchecked
	}
	return nil
}

const columns = `id::text, event_id::text, template, user_id, recipient, message_id, request_id, status, attempts,
	last_error, created_at, updated_at, sent_at, next_attempt_at,
	greatest(created_at, (SELECT resumed_at FROM restores WHERE restores.id = restore_id))`

func scan(row pgx.CollectableRow) (mail.Delivery, error) {
	var d mail.Delivery
	var sentAt, next *time.Time
	err := row.Scan(&d.ID, &d.EventID, &d.Template, &d.UserID, &d.To, &d.MessageID, &d.RequestID, &d.Status, &d.Attempts,
		&d.LastError, &d.CreatedAt, &d.UpdatedAt, &sentAt, &next, &d.RetriedSince)
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

// Filter selects deliveries; an empty field selects all.
type Filter struct{ To, Template, Status, RequestID string }

// ErrNotFound says that no message has the id.
var ErrNotFound = problem.New(problem.NotFound, "message_not_found", "Message not found.")

// List returns up to limit deliveries that filter selects, newest first, starting after
// that at after. The order is that of their ids: a UUIDv7 is made when a message is created.
func (s *Store) List(ctx context.Context, filter Filter, after cursor.Position, limit int) ([]mail.Delivery, error) {
	// A condition that is left out lets the planner use the index of another one.
	conditions, args := []string{"true"}, pgx.NamedArgs{"limit": limit}
	for _, c := range []struct{ condition, name, value string }{
		{"id < @after", "after", string(after)},
		{"recipient = @recipient", "recipient", filter.To},
		{"template = @template", "template", filter.Template},
		{"status = @status", "status", filter.Status},
		{"request_id = @request_id AND request_id <> ''", "request_id", filter.RequestID},
	} {
		if c.value != "" {
			conditions = append(conditions, c.condition)
			args[c.name] = c.value
		}
	}
	query := `SELECT ` + columns + ` FROM messages WHERE ` + strings.Join(conditions, " AND ") + ` ORDER BY id DESC LIMIT @limit`
	rows, err := s.db.Query(ctx, query, args)
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
