package deadletter

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/jackc/pgx/v5"

	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/pkg/problem"
)

// What an operator may be told.
var (
	ErrClosed = problem.New(problem.Conflict, "dead_letter_closed", "This dead letter was replayed or discarded before.")
	ErrRaw    = problem.New(problem.Conflict, "dead_letter_not_replayable", "This dead letter is no event, so it cannot be handled again.")
)

const (
	replayLimit = 1000
	noteLimit   = 500
)

// closed is a letter that has just been closed, as its event tells of it.
type closed struct {
	id, stream    string
	eventID, name *string
}

func scanClosed(row pgx.CollectableRow) (closed, error) {
	var c closed
	err := row.Scan(&c.id, &c.stream, &c.eventID, &c.name)
	return c, err
}

// Replay has the letter's event handled again by its consumer, soon. The event
// keeps its id, so it cannot act twice; if it fails again, the letter is open
// again. It fails with ErrNotFound, ErrClosed or ErrRaw.
func (s *Store) Replay(ctx context.Context, id string) error {
	const query = `
		UPDATE dead_letters SET status = 'replayed', replay_due = @at, closed_at = @at, closed_by = @by
		WHERE id = @id AND status = 'open' AND event_id IS NOT NULL
		RETURNING id::text, stream, event_id::text, type`
	n, err := s.close(ctx, query, pgx.StrictNamedArgs{"id": id, "at": s.now(), "by": actor(ctx)}, replayed)
	if err == nil && n == 0 {
		err = s.whyNot(ctx, id)
	}
	return err
}

// Outcome says how many letters a replay by filter chose, and how many of them
// it replayed.
type Outcome struct {
	Matched  int `json:"matched"`
	Replayed int `json:"replayed"`
}

// ReplayMany replays the oldest of the open letters that filter chooses, at most
// limit; none in a dry run. Filter.Status is of no effect.
func (s *Store) ReplayMany(ctx context.Context, filter Filter, limit int, dryRun bool) (Outcome, error) {
	const chosen = `status = 'open' AND event_id IS NOT NULL
		AND (@type = '' OR type = @type)
		AND (@reason = '' OR strpos(reason, @reason) > 0)`
	if limit < 1 || limit > replayLimit {
		return Outcome{}, problem.Validation(problem.Field{Field: "max", Code: "out_of_range", Message: "Say how many at most, from 1 to 1000."})
	}
	args := pgx.NamedArgs{"type": filter.Type, "reason": filter.Reason, "limit": limit, "at": s.now(), "by": actor(ctx)}
	var done Outcome
	if err := s.db.QueryRow(ctx, `SELECT count(*) FROM dead_letters WHERE `+chosen, args).Scan(&done.Matched); err != nil {
		return Outcome{}, fmt.Errorf("count dead letters: %w", err)
	}
	if dryRun || done.Matched == 0 {
		return done, nil
	}
	var err error
	done.Replayed, err = s.close(ctx, `
		UPDATE dead_letters SET status = 'replayed', replay_due = @at, closed_at = @at, closed_by = @by
		WHERE id IN (SELECT id FROM dead_letters WHERE `+chosen+` ORDER BY id LIMIT @limit FOR UPDATE)
		RETURNING id::text, stream, event_id::text, type`, args, replayed)
	return done, err
}

// Discard gives a letter up, for a reason that stays on record.
func (s *Store) Discard(ctx context.Context, id, reason string) error {
	const query = `
		UPDATE dead_letters SET status = 'discarded', closed_at = @at, closed_by = @by, note = @note
		WHERE id = @id AND status = 'open'
		RETURNING id::text, stream, event_id::text, type`
	reason = strings.TrimSpace(text(reason))
	if reason == "" || utf8.RuneCountInString(reason) > noteLimit {
		return problem.Validation(problem.Field{Field: "reason", Code: "invalid_length", Message: "Say why, in 1 to 500 characters."})
	}
	n, err := s.close(ctx, query, pgx.StrictNamedArgs{"id": id, "at": s.now(), "by": actor(ctx), "note": reason}, func(c closed) event.Payload {
		return event.DeadLetterDiscarded{EventID: value(c.eventID), Type: value(c.name), Stream: c.stream, Reason: reason}
	})
	if err == nil && n == 0 {
		err = s.whyNot(ctx, id)
	}
	return err
}

func replayed(c closed) event.Payload {
	return event.DeadLetterReplayed{EventID: value(c.eventID), Type: value(c.name), Stream: c.stream}
}

// close runs the update and writes an event for each letter that it closed, in
// one transaction, and returns how many those were.
func (s *Store) close(ctx context.Context, query string, args any, tell func(closed) event.Payload) (n int, err error) {
	err = pgx.BeginFunc(ctx, s.db, func(tx pgx.Tx) error {
		rows, err := tx.Query(ctx, query, args)
		if err != nil {
			return err
		}
		letters, err := pgx.CollectRows(rows, scanClosed)
		if err != nil {
			return err
		}
		events := make([]event.Event, len(letters))
		for i, c := range letters {
			events[i] = event.New(ctx, s.now(), c.id, tell(c))
		}
		n = len(letters)
		return s.box.Add(ctx, tx, events...)
	})
	if err != nil {
		return 0, fmt.Errorf("close dead letters: %w", err)
	}
	return n, nil
}

// whyNot says why nothing was done with a letter.
func (s *Store) whyNot(ctx context.Context, id string) error {
	var status string
	err := s.db.QueryRow(ctx, `SELECT status FROM dead_letters WHERE id = $1`, id).Scan(&status)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return ErrNotFound
	case err != nil:
		return fmt.Errorf("get dead letter: %w", err)
	case status != Open:
		return ErrClosed
	}
	return ErrRaw
}

// actor names who acts, for the record.
func actor(ctx context.Context) string {
	a := event.OriginFrom(ctx).Actor
	return strings.TrimSuffix(a.Type+":"+a.ID, ":")
}

func value(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}
