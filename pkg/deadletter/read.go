package deadletter

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"unicode/utf8"

	"github.com/jackc/pgx/v5"

	"github.com/headgate/headgate/pkg/cursor"
	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/pkg/problem"
)

const list = `
	SELECT id::text, event_id::text, type, stream, reason, class, jsonb_array_length(attempts),
		first_failed_at, last_failed_at, status
	FROM dead_letters
	WHERE purged_at IS NULL
		AND (@after = '' OR id < NULLIF(@after, '')::uuid)
		AND (@type = '' OR type = @type)
		AND (@reason = '' OR strpos(reason, @reason) > 0)
		AND (@status = '' OR status = @status)
	ORDER BY id DESC
	LIMIT @limit`

// List returns up to limit dead letters that match filter, newest first. The list
// begins behind after. It is in the order of their ids, which are UUIDv7 made when they are
// recorded. It fails with a validation
// problem if the filter has an unknown status.
func (s *Store) List(ctx context.Context, filter Filter, after cursor.Position, limit int) ([]DeadLetter, error) {
	if !slices.Contains(statuses, filter.Status) {
		return nil, problem.Validation(problem.Field{Field: "status", Code: "unknown_value", Message: "Unknown status: use open, replaying, replayed or discarded."})
	}
	rows, err := s.db.Query(ctx, list, pgx.StrictNamedArgs{
		"after": string(after), "type": filter.Type, "reason": filter.Reason, "status": filter.Status, "limit": limit,
	})
	if err != nil {
		return nil, fmt.Errorf("list dead letters: %w", err)
	}
	deadLetters, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (DeadLetter, error) {
		var l DeadLetter
		err := row.Scan(&l.ID, &l.EventID, &l.Type, &l.Stream, &l.Reason, &l.Class, &l.Attempts,
			&l.FirstFailedAt, &l.LastFailedAt, &l.Status)
		return l, err
	})
	if err != nil {
		return nil, fmt.Errorf("list dead letters: %w", err)
	}
	return deadLetters, nil
}

// Get returns a dead letter. The error is ErrNotFound if there is none with the id.
func (s *Store) Get(ctx context.Context, id string) (Detail, error) {
	const query = `
		SELECT id::text, event_id::text, type, stream, reason, class, jsonb_array_length(attempts),
			first_failed_at, last_failed_at, status, entry_id, closed_at, closed_by, note, attempts, payload
		FROM dead_letters
		WHERE id = $1 AND purged_at IS NULL`
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
