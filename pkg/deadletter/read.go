package deadletter

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"
	"unicode/utf8"

	"github.com/jackc/pgx/v5"

	"github.com/headgate/headgate/pkg/bus"
	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/pkg/problem"
)

// Letter is a dead letter in a list.
type Letter struct {
	ID            string    `json:"id"`
	EventID       *string   `json:"eventId,omitempty"`
	Type          *string   `json:"type,omitempty"`
	Stream        string    `json:"stream"`
	Reason        string    `json:"reason"`
	Class         string    `json:"class"`
	Attempts      int       `json:"attempts"`
	FirstFailedAt time.Time `json:"firstFailedAt"`
	LastFailedAt  time.Time `json:"lastFailedAt"`
	Status        string    `json:"status"`
}

// The states of a letter.
const (
	Open      = "open"
	Replayed  = "replayed"
	Discarded = "discarded"
)

// Detail is a dead letter with what it holds. Payload is the event with its
// sealed values masked, or the raw fields of an entry that is none.
type Detail struct {
	Letter
	EntryID  string        `json:"entryId"`
	ClosedAt *time.Time    `json:"closedAt,omitempty"`
	ClosedBy string        `json:"closedBy,omitempty"`
	Note     string        `json:"note,omitempty"` // why it was discarded
	Errors   []bus.Attempt `json:"errors"`
	Payload  any           `json:"payload"`
}

// Filter chooses dead letters; empty members choose all.
type Filter struct {
	Type   string
	Reason string
	Status string
}

// ErrNotFound says that there is no dead letter with the id.
var ErrNotFound = problem.New(problem.NotFound, "dead_letter_not_found", "There is no such dead letter.")

const list = `
	SELECT id::text, event_id::text, type, stream, reason, class, jsonb_array_length(attempts),
		first_failed_at, last_failed_at, status
	FROM dead_letters
	WHERE (@after = '' OR id < NULLIF(@after, '')::uuid)
		AND (@type = '' OR type = @type)
		AND (@reason = '' OR strpos(reason, @reason) > 0)
		AND (@status = '' OR status = @status)
	ORDER BY id DESC
	LIMIT @limit`

// List returns up to limit letters that filter chooses, newest first, after the
// one with the id after.
func (s *Store) List(ctx context.Context, filter Filter, after string, limit int) ([]Letter, error) {
	rows, err := s.db.Query(ctx, list, pgx.StrictNamedArgs{
		"after": after, "type": filter.Type, "reason": filter.Reason, "status": filter.Status, "limit": limit,
	})
	if err != nil {
		return nil, fmt.Errorf("list dead letters: %w", err)
	}
	letters, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (Letter, error) {
		var l Letter
		err := row.Scan(&l.ID, &l.EventID, &l.Type, &l.Stream, &l.Reason, &l.Class, &l.Attempts,
			&l.FirstFailedAt, &l.LastFailedAt, &l.Status)
		return l, err
	})
	if err != nil {
		return nil, fmt.Errorf("list dead letters: %w", err)
	}
	return letters, nil
}

// Get returns one letter, or ErrNotFound.
func (s *Store) Get(ctx context.Context, id string) (Detail, error) {
	const query = `
		SELECT id::text, event_id::text, type, stream, reason, class, jsonb_array_length(attempts),
			first_failed_at, last_failed_at, status, entry_id, closed_at, closed_by, note, attempts, payload
		FROM dead_letters
		WHERE id = $1`
	var d Detail
	var payload []byte
	err := s.db.QueryRow(ctx, query, id).Scan(&d.ID, &d.EventID, &d.Type, &d.Stream, &d.Reason, &d.Class, &d.Attempts,
		&d.FirstFailedAt, &d.LastFailedAt, &d.Status, &d.EntryID, &d.ClosedAt, &d.ClosedBy, &d.Note, &d.Errors, &payload)
	if errors.Is(err, pgx.ErrNoRows) {
		return Detail{}, ErrNotFound
	}
	if err != nil {
		return Detail{}, fmt.Errorf("get dead letter: %w", err)
	}
	d.Payload = readable(payload)
	return d, nil
}

// readable returns JSON with sealed values masked, or the bytes as text.
func readable(payload []byte) any {
	var v any
	if err := json.Unmarshal(payload, &v); err == nil {
		return event.Mask(v)
	}
	if utf8.Valid(payload) {
		return string(payload)
	}
	return payload // base64 in JSON
}
