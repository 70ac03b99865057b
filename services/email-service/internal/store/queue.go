package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/services/email-service/internal/mail"
)

// queue returns an SQL statement that stores a delivery and says whether the database is
// checked; if it is not, it stores nothing. The state of the delivery depends on the latest
// restore of the database whose lost one had handled the event: it is withheld, or what the
// operator has decided.
func queue(checked string) string {
	return `
	WITH checked AS MATERIALIZED (
		SELECT (` + checked + `) AS checked
	), restore AS (
		SELECT id, resumed_at, ` + skips + ` AS skip
		FROM restores r JOIN restore_numbers ON restore_id = id, CAST(@occurred_at AS timestamptz) AS occurred
		WHERE producer = @producer AND epoch = @epoch AND handled_seq >= @seq AND @seq > 0
		ORDER BY id DESC
		LIMIT 1
	), delivery AS (
		SELECT restore.id AS restore_id, CASE
			WHEN restore.id IS NULL THEN 'queued'
			WHEN restore.resumed_at IS NULL THEN 'withheld'
			WHEN restore.skip THEN 'suppressed'
			ELSE 'queued' END AS status
		FROM checked LEFT JOIN restore ON true
		WHERE checked
	), stored AS (
		INSERT INTO messages (id, event_id, template, user_id, recipient, message_id, request_id, status, created_at, updated_at,
			occurred_at, restore_id, event)
		SELECT @id, @event_id, @template, @user_id, @recipient, @message_id, @request_id, status, @created_at, @updated_at,
			@occurred_at, restore_id, CASE WHEN status = 'withheld' THEN @event::json END
		FROM delivery
		WHERE NOT EXISTS (SELECT FROM deleted_users WHERE user_id = @user_id)
		ON CONFLICT ON CONSTRAINT messages_event_template_key DO NOTHING
	)
	SELECT checked FROM checked`
}

// Queue implements mail.Store.
func (s *Store) Queue(ctx context.Context, d mail.Delivery, e event.Event) (mail.Delivery, error) {
	const read = `SELECT ` + columns + ` FROM messages WHERE event_id = $1 AND template = $2`
	source, err := json.Marshal(e)
	if err != nil {
		return mail.Delivery{}, fmt.Errorf("queue delivery: %w", err)
	}
	batch := &pgx.Batch{}
	batch.Queue(lockUser, d.UserID)
	batch.Queue(queue(s.checked), pgx.StrictNamedArgs{
		"id": d.ID, "event_id": d.EventID, "template": d.Template, "user_id": d.UserID, "recipient": d.To,
		"message_id": d.MessageID, "request_id": d.RequestID, "created_at": d.CreatedAt, "updated_at": d.UpdatedAt,
		"occurred_at": e.At(s.now()), "event": source, "producer": e.Producer, "epoch": e.ProducerEpoch, "seq": e.ProducerSeq,
	}).QueryRow(func(row pgx.Row) error {
		var checked bool
		if err := row.Scan(&checked); err != nil || checked {
			return err
		}
		return mail.ErrDatabaseUnchecked
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
	if stored.Status == mail.StatusWithheld {
		// A delivery that was withheld before its event was scheduled has none.
		const keep = `UPDATE messages SET event = $2, occurred_at = $3 WHERE id = $1 AND status = 'withheld' AND event IS NULL`
		if _, err := s.db.Exec(ctx, keep, stored.ID, source, e.At(s.now())); err != nil {
			return mail.Delivery{}, fmt.Errorf("keep the event of a withheld delivery: %w", err)
		}
	}
	return stored, nil
}
