// Package store keeps the audit log in Postgres. Records are added and read. They are
// never changed, except that the personal data of deleted accounts is erased.
package store

import (
	"context"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/headgate/headgate/pkg/bus"
	"github.com/headgate/headgate/pkg/cursor"
	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/pkg/postgres"
	"github.com/headgate/headgate/pkg/problem"
)

//go:embed migrations/*.sql
var migrations embed.FS

// Schema returns the migrations of this store.
func Schema() postgres.Schema { return postgres.NewSchema("audit", migrations, "migrations") }

// Record is one record of the log.
type Record struct {
	ID         string          `json:"id"`
	Type       string          `json:"type"`
	Version    int             `json:"version"`
	OccurredAt time.Time       `json:"occurredAt"`
	RecordedAt time.Time       `json:"recordedAt"`
	Actor      event.Actor     `json:"actor"`
	SubjectID  string          `json:"subjectId,omitempty"`
	Outcome    string          `json:"outcome"`
	IP         string          `json:"ip,omitempty"`
	UserAgent  string          `json:"userAgent,omitempty"`
	RequestID  string          `json:"requestId,omitempty"`
	Data       json.RawMessage `json:"data"`
}

// Filter selects records; an empty field selects all. Party selects the records of a user
// as subject or as actor.
type Filter struct {
	ActorID, SubjectID, Party    string
	Type, Outcome, IP, RequestID string
	From, To                     time.Time // occurred at From or later, and before To
}

// ErrNotFound says that no record has the id.
var ErrNotFound = problem.New(problem.NotFound, "audit_event_not_found", "Audit record not found.")

// Store is the audit log. It is safe for concurrent use.
type Store struct {
	db    *postgres.Pool
	group *bus.GroupCommit[event.Event]
}

// New returns the log in db, which must have deadletter.Schema and Schema, in this order.
func New(db *postgres.Pool) *Store {
	s := &Store{db: db}
	s.group = bus.NewGroupCommit(bus.GroupCommitConfig[event.Event]{
		Write: s.insert, Unavailable: postgres.Unavailable, Contended: postgres.Contended, Limit: insertLimit, Writers: insertWriters, Timeout: insertTimeout,
		Size: func(e event.Event) int { return len(e.Data) }, SizeLimit: insertSize,
	})
	return s
}

const columns = `id::text, type, version, occurred_at, recorded_at, actor_type, actor_id, subject_id, outcome,
	ip, user_agent, request_id, data`

func scan(row pgx.CollectableRow) (Record, error) {
	var r Record
	err := row.Scan(&r.ID, &r.Type, &r.Version, &r.OccurredAt, &r.RecordedAt, &r.Actor.Type, &r.Actor.ID, &r.SubjectID, &r.Outcome,
		&r.IP, &r.UserAgent, &r.RequestID, &r.Data)
	return r, err
}

// List returns up to limit records that filter selects, newest first, starting after that
// at after. Records are ordered by id. Ids are unique, so no page omits or
// repeats a record, and they are UUIDv7, so the order is that of time.
func (s *Store) List(ctx context.Context, filter Filter, after cursor.Position, limit int) ([]Record, error) {
	conditions, args := []string{"true"}, pgx.NamedArgs{"limit": limit}
	for _, c := range []struct {
		condition, name string
		value           any // the condition is left out if this is empty
	}{
		{"id < @after", "after", string(after)},
		{"actor_id = @actor_id", "actor_id", filter.ActorID},
		{"subject_id = @subject_id", "subject_id", filter.SubjectID},
		{"(subject_id = @party OR actor_id = @party)", "party", filter.Party},
		{"type = @type", "type", filter.Type},
		{"outcome = @outcome", "outcome", filter.Outcome},
		{"ip = @ip", "ip", filter.IP},
		{"request_id = @request_id", "request_id", filter.RequestID},
		{"occurred_at >= @from", "from", filter.From},
		{"occurred_at < @to", "to", filter.To},
	} {
		if at, ok := c.value.(time.Time); c.value == "" || ok && at.IsZero() {
			continue
		}
		conditions = append(conditions, c.condition)
		args[c.name] = c.value
	}
	query := `SELECT ` + columns + ` FROM events WHERE ` + strings.Join(conditions, " AND ") + ` ORDER BY id DESC LIMIT @limit`
	rows, err := s.db.Query(ctx, query, args)
	if err != nil {
		return nil, fmt.Errorf("list audit records: %w", err)
	}
	records, err := pgx.CollectRows(rows, scan)
	if err != nil {
		return nil, fmt.Errorf("list audit records: %w", err)
	}
	return records, nil
}

// Get returns one record, or ErrNotFound.
func (s *Store) Get(ctx context.Context, id string) (Record, error) {
	rows, err := s.db.Query(ctx, `SELECT `+columns+` FROM events WHERE id = $1`, id)
	if err != nil {
		return Record{}, fmt.Errorf("get audit record: %w", err)
	}
	record, err := pgx.CollectExactlyOneRow(rows, scan)
	if errors.Is(err, pgx.ErrNoRows) {
		return Record{}, ErrNotFound
	}
	if err != nil {
		return Record{}, fmt.Errorf("get audit record: %w", err)
	}
	return record, nil
}
