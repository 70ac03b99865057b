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
)

const (
	insertLimit   = 500
	insertWriters = 2
	insertTimeout = 10 * time.Second
)

// Add records an event, once however often it is called. Calls at the same time
// share a statement. The end of an account erases what is personal of it. What Postgres can never hold is a permanent error. Sealed
// values are masked: the log is read by more people than the mail.
func (s *Store) Add(ctx context.Context, e event.Event) error {
	masked, err := event.MaskJSON(e.Data)
	if err != nil {
		return bus.Permanent(fmt.Errorf("mask data: %w", err))
	}
	e.Data = masked
	err = s.group.Do(ctx, e)
	if fault, ok := errors.AsType[*pgconn.PgError](err); ok && strings.HasPrefix(fault.Code, "22") {
		return bus.Permanent(err) // Class 22, data exception: no retry mends it.
	}
	// What nobody did has no subject; it is not somebody who can be deleted.
	if err == nil && e.Name == deleted && e.Subject != "" {
		err = s.erase(ctx, e.Subject)
	}
	return err
}

var deleted = event.UserDeleted{}.EventName()

// Whoever is not signed in may be the subject: their own forgotten password, say.
const insert = `
	INSERT INTO events (id, type, version, occurred_at, producer, producer_seq, actor_type, actor_id, subject_id, outcome,
		ip, user_agent, request_id, correlation_id, causation_id, data)
	SELECT id, type, version, occurred_at, producer, producer_seq, actor_type, actor_id, subject_id, outcome,
		CASE WHEN origin.user_id IS NULL THEN ip ELSE '' END, CASE WHEN origin.user_id IS NULL THEN user_agent ELSE '' END,
		request_id, correlation_id, causation_id,
		CASE WHEN subject.user_id IS NULL THEN data::jsonb ELSE data::jsonb - $17::text[] END
	FROM unnest($1::uuid[], $2::text[], $3::integer[], $4::timestamptz[], $5::text[], $6::bigint[], $7::text[], $8::text[],
			$9::text[], $10::text[], $11::text[], $12::text[], $13::text[], $14::text[], $15::text[], $16::text[])
		AS e (id, type, version, occurred_at, producer, producer_seq, actor_type, actor_id,
			subject_id, outcome, ip, user_agent, request_id, correlation_id, causation_id, data)
		LEFT JOIN erased_users AS origin ON origin.user_id = CASE WHEN actor_id = '' THEN subject_id ELSE actor_id END
		LEFT JOIN erased_users AS subject ON subject.user_id = subject_id
	ON CONFLICT (id) DO NOTHING`

func (s *Store) insert(ctx context.Context, events []event.Event) error {
	n := len(events)
	var (
		versions = make([]int, n)
		times    = make([]time.Time, n)
		seqs     = make([]int64, n)
		texts    = make([][]string, 13)
	)
	for i := range texts {
		texts[i] = make([]string, n)
	}
	for i, e := range events {
		versions[i], times[i], seqs[i] = e.Version(), e.OccurredAt, e.ProducerSeq
		for column, value := range [...]string{
			e.ID, e.Type(), e.Producer, e.Actor.Type, e.Actor.ID, e.Subject, string(e.Outcome),
			e.IP, e.UserAgent, e.RequestID, e.CorrelationID, e.CausationID, string(e.Data),
		} {
			texts[column][i] = value
		}
	}
	batch := &pgx.Batch{}
	batch.Queue(`SELECT pg_advisory_xact_lock_shared($1)`, int64(eraseLock))
	batch.Queue(insert, texts[0], texts[1], versions, times, texts[2], seqs, texts[3], texts[4],
		texts[5], texts[6], texts[7], texts[8], texts[9], texts[10], texts[11], texts[12], personal)
	if err := s.db.SendBatch(ctx, batch).Close(); err != nil {
		return fmt.Errorf("insert audit records: %w", err)
	}
	return nil
}
