package store

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/headgate/headgate/pkg/bus"
	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/pkg/postgres"
)

const (
	insertLimit   = 500
	insertSize    = 16 << 20 // bytes of data, in at most insertTimeout
	insertWriters = 2
	insertTimeout = 10 * time.Second
)

// Add records an event once, however often it is called. Calls at the same time share a
// statement. The deletion of an account erases its personal data. Sealed values are
// masked, because more people read the log than the mail. An event that Postgres cannot
// store is a permanent error.
func (s *Store) Add(ctx context.Context, e event.Event) error {
	masked, err := event.MaskJSON(e.Data)
	if err != nil {
		return bus.Permanent(fmt.Errorf("mask data: %w", err))
	}
	e.Data = masked
	err = s.group.Do(ctx, e)
	if pgErr, ok := errors.AsType[*pgconn.PgError](err); ok && strings.HasPrefix(pgErr.Code, "22") {
		return bus.Permanent(err) // Class 22, data exception: no retry can fix it.
	}
	// An event without a subject has no user whose data could be erased.
	if err == nil && e.Name == userDeleted && e.Subject != "" {
		err = s.erase(ctx, e.Subject)
	}
	return err
}

var userDeleted = event.UserDeleted{}.EventName()

// insert stores a batch with one statement: unnest makes a row of each position in the
// arrays. The data and the origin of erased users are left out. An anonymous actor may be
// the subject, for example somebody who forgot their password, so it counts as the user.
const insert = `
	INSERT INTO events (id, type, version, occurred_at, producer, producer_epoch, producer_seq, actor_type, actor_id, subject_id, outcome,
		ip, user_agent, request_id, correlation_id, causation_id, data)
	SELECT id, type, version, occurred_at, producer, producer_epoch, producer_seq, actor_type, actor_id, subject_id, outcome,
		CASE WHEN origin.user_id IS NULL THEN ip ELSE '' END, CASE WHEN origin.user_id IS NULL THEN user_agent ELSE '' END,
		request_id, correlation_id, causation_id,
		CASE WHEN subject.user_id IS NULL THEN data::jsonb ELSE data::jsonb - @personal::text[] END
	FROM unnest(@id::uuid[], @type::text[], @version::integer[], @occurred_at::timestamptz[],
			@producer::text[], @producer_epoch::text[], @producer_seq::bigint[], @actor_type::text[], @actor_id::text[],
			@subject_id::text[], @outcome::text[], @ip::text[], @user_agent::text[],
			@request_id::text[], @correlation_id::text[], @causation_id::text[], @data::text[])
		AS e (id, type, version, occurred_at,
			producer, producer_epoch, producer_seq, actor_type, actor_id,
			subject_id, outcome, ip, user_agent,
			request_id, correlation_id, causation_id, data)
		LEFT JOIN erased_users AS origin ON origin.user_id = CASE WHEN actor_id = '' THEN subject_id ELSE actor_id END
		LEFT JOIN erased_users AS subject ON subject.user_id = subject_id
	ON CONFLICT (id) DO NOTHING`

func (s *Store) insert(ctx context.Context, events []event.Event) error {
	inserted := int64(0)
	batch := &pgx.Batch{}
	batch.Queue(postgres.LimitLockWait)
	batch.Queue(`SELECT pg_advisory_xact_lock_shared($1)`, int64(eraseLock))
	batch.Queue(insert, columnsOf(events)).Exec(func(tag pgconn.CommandTag) error {
		inserted = tag.RowsAffected()
		return nil
	})
	if err := s.db.SendBatch(ctx, batch).Close(); err != nil {
		return fmt.Errorf("insert audit records: %w", err)
	}
	if inserted == int64(len(events)) {
		return nil
	}
	return s.addNumbers(ctx, events)
}

// addNumbers records the numbers of events that the log has under other numbers. A
// restored producer publishes an event again in a new epoch; without the number, it
// would count as missing.
func (s *Store) addNumbers(ctx context.Context, events []event.Event) error {
	const query = `
		INSERT INTO event_numbers (producer, epoch, seq, event_id)
		SELECT e.producer, e.epoch, e.seq, e.id
		FROM unnest(@producer::text[], @epoch::text[], @seq::bigint[], @id::uuid[]) AS e (producer, epoch, seq, id)
			JOIN events recorded ON recorded.id = e.id
		WHERE e.seq > 0 AND (recorded.producer, recorded.producer_epoch, recorded.producer_seq) <> (e.producer, e.epoch, e.seq)
		ON CONFLICT DO NOTHING`
	args := pgx.StrictNamedArgs{
		"producer": column(events, func(e *event.Event) string { return e.Producer }),
		"epoch":    column(events, func(e *event.Event) string { return e.ProducerEpoch }),
		"seq":      column(events, func(e *event.Event) int64 { return e.ProducerSeq }),
		"id":       column(events, func(e *event.Event) string { return e.ID }),
	}
	if _, err := s.db.Exec(ctx, query, args); err != nil {
		return fmt.Errorf("insert numbers of audit records: %w", err)
	}
	return nil
}

// columnsOf returns the arguments of insert: an array for each column.
func columnsOf(events []event.Event) pgx.StrictNamedArgs {
	return pgx.StrictNamedArgs{
		"id":             column(events, func(e *event.Event) string { return e.ID }),
		"type":           column(events, func(e *event.Event) string { return e.Type() }),
		"version":        column(events, func(e *event.Event) int { return e.Version() }),
		"occurred_at":    column(events, func(e *event.Event) time.Time { return e.OccurredAt }),
		"producer":       column(events, func(e *event.Event) string { return e.Producer }),
		"producer_epoch": column(events, func(e *event.Event) string { return e.ProducerEpoch }),
		"producer_seq":   column(events, func(e *event.Event) int64 { return e.ProducerSeq }),
		"actor_type":     column(events, func(e *event.Event) string { return e.Actor.Type }),
		"actor_id":       column(events, func(e *event.Event) string { return e.Actor.ID }),
		"subject_id":     column(events, func(e *event.Event) string { return e.Subject }),
		"outcome":        column(events, func(e *event.Event) string { return string(e.Outcome) }),
		"ip":             column(events, func(e *event.Event) string { return e.IP }),
		"user_agent":     column(events, func(e *event.Event) string { return e.UserAgent }),
		"request_id":     column(events, func(e *event.Event) string { return e.RequestID }),
		"correlation_id": column(events, func(e *event.Event) string { return e.CorrelationID }),
		"causation_id":   column(events, func(e *event.Event) string { return e.CausationID }),
		"data":           column(events, func(e *event.Event) string { return string(e.Data) }),
		"personal":       personal,
	}
}

func column[T any](events []event.Event, value func(*event.Event) T) []T {
	values := make([]T, len(events))
	for i := range events {
		values[i] = value(&events[i])
	}
	return values
}
