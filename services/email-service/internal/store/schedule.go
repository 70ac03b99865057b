package store

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/jackc/pgx/v5"

	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/services/email-service/internal/mail"
)

// Fail implements mail.Store.
func (s *Store) Fail(ctx context.Context, id, reason string, e event.Event) error {
	const query = `
		UPDATE messages SET status = 'failed', last_error = $2, updated_at = $3, event = NULL, next_attempt_at = NULL
		WHERE id = $1 AND status NOT IN ('sent', 'failed')`
	if err := s.change(ctx, e, query, id, text(reason), s.now()); err != nil {
		return fmt.Errorf("record that the mail failed: %w", err)
	}
	return nil
}

// Defer implements mail.Store.
func (s *Store) Defer(ctx context.Context, id string, d mail.Deferral, e event.Event) error {
	const query = `
		UPDATE messages SET status = 'deferred', last_error = $2, updated_at = $3, event = $4, next_attempt_at = $5
		WHERE id = $1 AND status NOT IN ('sent', 'suppressed')`
	source, err := json.Marshal(d.Source)
	if err != nil {
		return fmt.Errorf("defer mail: %w", err)
	}
	if err := s.change(ctx, e, query, id, text(d.Reason), s.now(), source, d.Next); err != nil {
		return fmt.Errorf("defer mail: %w", err)
	}
	return nil
}

// change runs an update and stores its event. It stores no event if no row changed.
func (s *Store) change(ctx context.Context, e event.Event, query string, args ...any) error {
	return s.db.Transact(ctx, func(tx pgx.Tx) error {
		tag, err := tx.Exec(ctx, query, args...)
		if err != nil || tag.RowsAffected() == 0 {
			return err
		}
		return s.box.Add(ctx, tx, e)
	})
}

// Release implements mail.Store.
func (s *Store) Release(ctx context.Context, id, reason string) error {
	const query = `
		UPDATE messages SET status = 'queued', attempts = greatest(attempts - 1, 0), last_error = $2, updated_at = $3
		WHERE id = $1 AND status = 'sending'`
	if _, err := s.db.Exec(ctx, query, id, text(reason), s.now()); err != nil {
		return fmt.Errorf("release delivery: %w", err)
	}
	return nil
}

// lease is longer than an attempt, including the wait for a free connection.
const lease = 10 * time.Minute

// TakeDue leases the deliveries whose next attempt is due, at most limit, and returns
// their events. It takes nothing while the database is not checked. It is a
// bus.PollerConfig.Take.
func (s *Store) TakeDue(ctx context.Context, _ string, limit int) ([]*message.Message, error) {
	query := `
		UPDATE messages SET status = 'queued', next_attempt_at = @until
		WHERE id IN (
			SELECT id FROM messages
			WHERE next_attempt_at <= @now AND (` + s.checked + `)
			ORDER BY next_attempt_at
			LIMIT @limit
			FOR UPDATE SKIP LOCKED)
		RETURNING event_id::text, event`
	if err := s.recordSent(ctx, lockNow); err != nil {
		return nil, err
	}
	if _, err := s.resumeBatch(ctx, s.checked); err != nil {
		return nil, err
	}
	now := s.now()
	rows, err := s.db.Query(ctx, query, pgx.StrictNamedArgs{"now": now, "until": now.Add(lease), "limit": limit})
	if err != nil {
		return nil, fmt.Errorf("take due deliveries: %w", err)
	}
	due, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (*message.Message, error) {
		var id string
		var source []byte
		if err := row.Scan(&id, &source); err != nil {
			return nil, err
		}
		return message.NewMessage(id, source), nil
	})
	if err != nil {
		return nil, fmt.Errorf("take due deliveries: %w", err)
	}
	return due, nil
}

// RenewDue makes the lease of a message last as long again. It is a
// bus.PollerConfig.Renew.
func (s *Store) RenewDue(ctx context.Context, m *message.Message) error {
	return s.setLease(ctx, m, new(s.now().Add(lease)))
}

// CompleteDue ends the lease of a message whose event was acknowledged. It is a
// bus.PollerConfig.Complete.
func (s *Store) CompleteDue(ctx context.Context, m *message.Message) error {
	return s.setLease(ctx, m, nil)
}

// ReleaseDue makes a message due again at once. It is a bus.PollerConfig.Release.
func (s *Store) ReleaseDue(ctx context.Context, m *message.Message) error {
	return s.setLease(ctx, m, new(s.now()))
}

func (s *Store) setLease(ctx context.Context, m *message.Message, due *time.Time) error {
	// A message that is sent, failed or deferred with a time of its own has no lease.
	const query = `
		UPDATE messages SET next_attempt_at = $2
		WHERE event_id = $1 AND status IN ('queued', 'sending') AND next_attempt_at IS NOT NULL`
	if _, err := s.db.Exec(ctx, query, m.UUID, due); err != nil {
		return fmt.Errorf("set lease: %w", err)
	}
	return nil
}

// text returns s without what Postgres does not accept as text.
func text(s string) string {
	return strings.ToValidUTF8(strings.ReplaceAll(s, "\x00", ""), "")
}
