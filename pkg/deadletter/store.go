package deadletter

import (
	"bytes"
	"context"
	"embed"
	"encoding/json"
	"fmt"
	"maps"
	"strings"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/ThreeDotsLabs/watermill/message/router/middleware"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/headgate/headgate/pkg/bus"
	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/pkg/outbox"
	"github.com/headgate/headgate/pkg/postgres"
)

//go:embed migrations/*.sql
var migrations embed.FS

// Schema returns the migrations of the dead letter table.
func Schema() postgres.Schema { return postgres.NewSchema("dead_letters", migrations, "migrations") }

// Store keeps dead letters. It is the publisher of Watermill's poison queue. Its
// methods may be called concurrently.
type Store struct {
	db  *pgxpool.Pool
	box *outbox.Box
	now func() time.Time
}

var _ message.Publisher = (*Store)(nil)

// New returns the dead letters in db, which must have Schema and outbox.Schema.
// The events about replays and discards go to box.
func New(db *pgxpool.Pool, box *outbox.Box, now func() time.Time) *Store {
	return &Store{db: db, box: box, now: now}
}

const writeTimeout = 5 * time.Second

const insert = `
	INSERT INTO dead_letters (id, message_id, event_id, type, producer, producer_seq, stream, entry_id, reason, class,
		attempts, payload, metadata, first_failed_at, last_failed_at)
	VALUES (@id, @message_id, @event_id, @type, @producer, @producer_seq, @stream, @entry_id, @reason, @class,
		@attempts, @payload, @metadata, @first_failed_at, @last_failed_at)
	ON CONFLICT (stream, message_id) WHERE status IN ('open', 'replaying') DO UPDATE
	SET reason = excluded.reason, class = excluded.class, attempts = dead_letters.attempts || excluded.attempts,
		last_failed_at = excluded.last_failed_at`

// recordFailure records the failed attempts of a replay. The dead letter is open
// again, unless the lease expired and another instance replays it or has done so.
const recordFailure = `
	UPDATE dead_letters
	SET reason = @reason, class = @class, attempts = attempts || @attempts, last_failed_at = @last_failed_at,
		status = CASE WHEN replay_due = @lease THEN 'open' ELSE status END,
		closed_by = CASE WHEN replay_due = @lease THEN '' ELSE closed_by END,
		replay_due = NULLIF(replay_due, @lease)
	WHERE id = @id`

// Publish implements message.Publisher. It stores each message as a dead letter,
// or records the failure on the dead letter that the message replays. It ignores
// the topic, which is that of the poison queue: the message's stream is in its
// metadata.
func (s *Store) Publish(_ string, messages ...*message.Message) error {
	for _, m := range messages {
		if err := s.store(m); err != nil {
			return err
		}
	}
	return nil
}

// Close implements message.Publisher. The database is the caller's.
func (s *Store) Close() error { return nil }

func (s *Store) store(m *message.Message) error {
	// The failed attempt may have ended the message's context.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(m.Context()), writeTimeout)
	defer cancel()
	id, err := uuid.NewV7()
	if err != nil {
		return fmt.Errorf("generate dead letter id: %w", err)
	}
	attempts := bus.Attempts(m)
	if len(attempts) == 0 {
		attempts = []bus.Attempt{{At: s.now().UTC(), Error: m.Metadata.Get(middleware.ReasonForPoisonedKey)}}
	}
	args := pgx.StrictNamedArgs{
		"reason":         text(firstLine(m.Metadata.Get(middleware.ReasonForPoisonedKey))),
		"class":          m.Metadata.Get(bus.ClassKey),
		"attempts":       encode(attempts),
		"last_failed_at": attempts[len(attempts)-1].At,
	}
	if id, lease, ok := replayOf(m); ok {
		again := maps.Clone(args)
		again["id"], again["lease"] = id, lease
		tag, err := s.db.Exec(ctx, recordFailure, again)
		if err != nil {
			return fmt.Errorf("record failed replay of dead letter %s: %w", id, err)
		}
		if tag.RowsAffected() == 1 {
			return nil
		}
	}
	var eventID, name, producer *string
	var seq *int64
	if e, err := event.Parse(m.Payload); err == nil && m.Metadata.Get(bus.MalformedKey) == "" && e.ID == m.UUID {
		eventID, name, producer, seq = &e.ID, &e.Name, &e.Producer, &e.ProducerSeq
	}
	maps.Copy(args, pgx.StrictNamedArgs{
		"id":              id,
		"message_id":      text(m.UUID),
		"event_id":        eventID,
		"type":            name,
		"producer":        producer,
		"producer_seq":    seq,
		"stream":          m.Metadata.Get(bus.TopicKey),
		"entry_id":        m.Metadata.Get(bus.EntryKey),
		"payload":         []byte(m.Payload),
		"metadata":        encode(foreign(m.Metadata)),
		"first_failed_at": attempts[0].At,
	})
	if _, err := s.db.Exec(ctx, insert, args); err != nil {
		return fmt.Errorf("insert dead letter: %w", err)
	}
	return nil
}

// foreign returns the metadata that the message was published with.
func foreign(m message.Metadata) map[string]string {
	own := maps.Clone(map[string]string(m))
	for _, key := range []string{
		bus.TopicKey, bus.EntryKey, bus.MalformedKey, bus.AttemptsKey, bus.ClassKey, bus.CrashLoopKey, idKey, leaseKey,
		middleware.ReasonForPoisonedKey, middleware.PoisonedTopicKey, middleware.PoisonedHandlerKey, middleware.PoisonedSubscriberKey,
	} {
		delete(own, key)
	}
	return own
}

// encode returns JSON without NUL characters, which Postgres's jsonb rejects.
func encode(v any) []byte {
	data, _ := json.Marshal(v) // Maps and lists of strings and times always encode.
	return bytes.ReplaceAll(data, []byte(`\u0000`), []byte(`\ufffd`))
}

// text replaces what a text column rejects: NUL and invalid UTF-8.
func text(s string) string {
	return strings.ToValidUTF8(strings.ReplaceAll(s, "\x00", "\uFFFD"), "\uFFFD")
}

// firstLine removes the stack trace of a recovered panic; the attempts keep it.
func firstLine(s string) string {
	line, _, _ := strings.Cut(s, "\n")
	return line
}
