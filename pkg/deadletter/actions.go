package deadletter

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/pkg/problem"
	"github.com/headgate/headgate/pkg/textfield"
)

// ErrClosed is returned for a dead letter that is not open; the message depends on
// its state. ErrNotReplayable is returned for one without an event.
var (
	ErrClosed        = errClosed("This dead letter is not open.")
	ErrNotReplayable = problem.New(problem.Conflict, "dead_letter_not_replayable", "This entry could not be decoded, so it cannot be replayed.")
)

func errClosed(message string) *problem.Problem {
	return problem.New(problem.Conflict, "dead_letter_closed", message)
}

const (
	replayLimit = 1000
	noteLimit   = 500
)

// subject is the dead letter that an action changed, as its event names it.
type subject struct {
	id, stream    string
	eventID, name *string
}

func scanSubject(row pgx.CollectableRow) (subject, error) {
	var l subject
	err := row.Scan(&l.id, &l.stream, &l.eventID, &l.name)
	return l, err
}

// Replay requests that the consumer handles the dead letter's event again. The
// dead letter is replaying until then: replayed if the handler succeeds, open
// again if it fails. The event keeps its id and its number, so a handler that goes by
// them does not act twice, also if the database was restored after an earlier replay. The
// error is ErrNotFound, ErrClosed or ErrNotReplayable.
func (s *Store) Replay(ctx context.Context, id string) error {
	const query = `
		UPDATE dead_letters SET status = 'replaying', replay_due = @at, closed_by = @by
		WHERE id = @id AND status = 'open' AND event_id IS NOT NULL
		RETURNING id::text, stream, event_id::text, type`
	args := pgx.StrictNamedArgs{"id": id, "at": s.now(), "by": actor(ctx)}
	changed, err := s.change(ctx, query, args, replayEvent)
	if err == nil && changed == 0 {
		err = s.refusal(ctx, id)
	}
	return err
}

// Outcome counts the dead letters of a replay by filter.
type Outcome struct {
	// Matched is how many open dead letters match the filter and can be replayed.
	Matched int `json:"matched"`
	// Requested is how many replays were requested; the API calls it replayed.
	Requested int `json:"replayed"`
	// NotReplayable is how many open dead letters match the filter, but have no event.
	NotReplayable int `json:"notReplayable"`
}

// openMatching selects the open dead letters that match a filter.
const openMatching = `status = 'open'
	AND (@type = '' OR type = @type)
	AND (@reason = '' OR strpos(reason, @reason) > 0)`

// ReplayMatching requests the replay of the oldest open dead letters that match
// filter, at most limit of them. It ignores Filter.Status.
func (s *Store) ReplayMatching(ctx context.Context, filter Filter, limit int) (Outcome, error) {
	const query = `
		UPDATE dead_letters SET status = 'replaying', replay_due = @at, closed_by = @by
		WHERE id IN (
			SELECT id FROM dead_letters
			WHERE event_id IS NOT NULL AND ` + openMatching + `
			ORDER BY id
			LIMIT @limit
			FOR UPDATE)
		RETURNING id::text, stream, event_id::text, type`
	outcome, err := s.PreviewReplay(ctx, filter, limit)
	if err != nil || outcome.Matched == 0 {
		return outcome, err
	}
	args := pgx.StrictNamedArgs{"type": filter.Type, "reason": filter.Reason, "limit": limit, "at": s.now(), "by": actor(ctx)}
	outcome.Requested, err = s.change(ctx, query, args, replayEvent)
	return outcome, err
}

// PreviewReplay returns the counts of ReplayMatching and requests no replay.
func (s *Store) PreviewReplay(ctx context.Context, filter Filter, limit int) (Outcome, error) {
	const query = `
		SELECT count(event_id), count(*) - count(event_id)
		FROM dead_letters
		WHERE ` + openMatching
	if limit < 1 || limit > replayLimit {
		return Outcome{}, problem.Validation(problem.Field{Field: "max", Code: "out_of_range", Message: "max must be a number from 1 to 1000."})
	}
	var outcome Outcome
	args := pgx.StrictNamedArgs{"type": filter.Type, "reason": filter.Reason}
	if err := s.db.QueryRow(ctx, query, args).Scan(&outcome.Matched, &outcome.NotReplayable); err != nil {
		return Outcome{}, fmt.Errorf("count dead letters: %w", err)
	}
	return outcome, nil
}

// Discard closes an open dead letter without a replay and records the reason. The
// error is ErrNotFound, ErrClosed or problem.ErrValidation.
func (s *Store) Discard(ctx context.Context, id, reason string) error {
	const query = `
		UPDATE dead_letters SET status = 'discarded', closed_at = @at, closed_by = @by, note = @note
		WHERE id = @id AND status = 'open'
		RETURNING id::text, stream, event_id::text, type`
	reason, fault := textfield.Lines("reason", strings.TrimSpace(reason), noteLimit)
	if fault != nil && fault.Code != "too_long" {
		return problem.Validation(*fault)
	}
	if fault != nil || reason == "" {
		return problem.Validation(problem.Field{Field: "reason", Code: "invalid_length", Message: "A reason of 1 to 500 characters is required."})
	}
	args := pgx.StrictNamedArgs{"id": id, "at": s.now(), "by": actor(ctx), "note": reason}
	changed, err := s.change(ctx, query, args, func(l subject) event.Payload {
		return event.DeadLetterDiscarded{EventID: value(l.eventID), Type: value(l.name), Stream: l.stream, Reason: reason}
	})
	if err == nil && changed == 0 {
		err = s.refusal(ctx, id)
	}
	return err
}

func replayEvent(l subject) event.Payload {
	return event.DeadLetterReplayed{EventID: value(l.eventID), Type: value(l.name), Stream: l.stream}
}

// change runs the update and writes an event for each dead letter that it
// returns, in one transaction. It returns how many those are.
func (s *Store) change(ctx context.Context, update string, args any, payload func(subject) event.Payload) (n int, err error) {
	err = s.db.Transact(ctx, func(tx pgx.Tx) error {
		rows, err := tx.Query(ctx, update, args)
		if err != nil {
			return err
		}
		deadLetters, err := pgx.CollectRows(rows, scanSubject)
		if err != nil {
			return err
		}
		events := make([]event.Event, len(deadLetters))
		for i, l := range deadLetters {
			events[i] = event.New(ctx, s.now(), l.id, payload(l))
		}
		n = len(deadLetters)
		return s.box.Add(ctx, tx, events...)
	})
	if err != nil {
		return 0, fmt.Errorf("change dead letters: %w", err)
	}
	return n, nil
}

// refusal returns why an action did not change a dead letter.
func (s *Store) refusal(ctx context.Context, id string) error {
	var status string
	err := s.db.QueryRow(ctx, `SELECT status FROM dead_letters WHERE id = $1 AND purged_at IS NULL`, id).Scan(&status)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return ErrNotFound
	case err != nil:
		return fmt.Errorf("get dead letter: %w", err)
	}
	switch status {
	case Open:
		return ErrNotReplayable
	case Replaying:
		return errClosed("This dead letter is being replayed. Wait for the result.")
	case Replayed:
		return errClosed("This dead letter was already replayed.")
	case Discarded:
		return errClosed("This dead letter was already discarded.")
	}
	return ErrClosed
}

// actor returns the actor as closed_by records it, such as admin:ID.
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
