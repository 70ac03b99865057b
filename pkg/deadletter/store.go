package deadletter

import (
	"context"
	"embed"
	"fmt"
	"maps"
	"strings"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/ThreeDotsLabs/watermill/message/router/middleware"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

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
	db  *postgres.Pool
	box *outbox.Box
	now func() time.Time
}

var _ message.Publisher = (*Store)(nil)

// New returns the dead letters in db, which must have Schema and outbox.Schema.
// The events about replays and discards go to box.
func New(db *postgres.Pool, box *outbox.Box, now func() time.Time) *Store {
	return &Store{db: db, box: box, now: now}
}

const (
	writeTimeout = 5 * time.Second
	storeTimeout = 10 * time.Second // long enough for a payload of payloadLimit
)

// insert keeps the last 100 attempts of a message that fails again and again.
const insert = `
	INSERT INTO dead_letters (id, message_id, event_id, type, producer, producer_seq, producer_epoch, stream, entry_id, reason, class,
		attempts, payload, metadata, first_failed_at, last_failed_at, refused)
	VALUES (@id, @message_id, @event_id, @type, @producer, @producer_seq, @producer_epoch, @stream, @entry_id, @reason, @class,
		@attempts, @payload, @metadata, @first_failed_at, @last_failed_at, @refused)
	ON CONFLICT (stream, message_id) WHERE status IN ('open', 'replaying') DO UPDATE
	SET reason = excluded.reason, class = excluded.class, last_failed_at = excluded.last_failed_at,
		attempts = jsonb_path_query_array(dead_letters.attempts || excluded.attempts, '$[last - 99 to last]')`

// recordFailure records the failed attempts of a replay. The dead letter is open
// again, unless the lease expired and another instance replays it or has done so.
// The condition on message_id matters if a publisher has forged the metadata, that on the
// payload if the dead letter was erased meanwhile.
const recordFailure = `
	UPDATE dead_letters
	SET reason = @reason, class = @class, last_failed_at = @last_failed_at,
		attempts = jsonb_path_query_array(attempts || @attempts::jsonb, '$[last - 99 to last]'),
		status = CASE WHEN replay_due = @lease THEN 'open' ELSE status END,
		closed_by = CASE WHEN replay_due = @lease THEN '' ELSE closed_by END,
		replay_due = NULLIF(replay_due, @lease)
	WHERE id = @id AND message_id = @message_id AND payload <> ''`

// Publish implements message.Publisher. It stores each message as a dead letter,
// or records the failure on the dead letter that the message replays. It ignores
// the topic, which is that of the poison queue: the message's stream is in its
// metadata.
//
// Any message can be stored, whatever it consists of: texts are cut and cleaned, and
// what Postgres rejects even so is left out. Any other error, such as a lock timeout or an
// unavailable database, is returned and says nothing about the message: Publish succeeds
// later.
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
	args, err := s.row(m)
	if err != nil {
		return err
	}
	// The failed attempt may have ended the message's context.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(m.Context()), storeTimeout)
	defer cancel()
	if r := replayOf(m); r != nil {
		r.mu.Lock()
		defer r.mu.Unlock()
		tag, err := s.db.Exec(ctx, recordFailure, pgx.StrictNamedArgs{
			"id": r.id, "lease": r.expires, "message_id": args["message_id"], "reason": args["reason"], "class": args["class"],
			"attempts": args["attempts"], "last_failed_at": args["last_failed_at"],
		})
		if err != nil {
			return fmt.Errorf("record failed replay of dead letter %s: %w", r.id, err)
		}
		if tag.RowsAffected() == 1 {
			return s.eraseIfErased(ctx, m.Payload)
		}
	}
	for _, without := range []pgx.StrictNamedArgs{{}, withoutDetails, withoutContent} {
		maps.Copy(args, without)
		_, err = s.db.Exec(ctx, insert, args)
		if !postgres.Rejected(err) {
			break
		}
	}
	if err != nil {
		return fmt.Errorf("insert dead letter: %w", err)
	}
	return s.eraseIfErased(ctx, m.Payload)
}

// What a dead letter is stored without if Postgres rejects it for a reason that the
// bounds of its columns do not cover. Without details, it can still be replayed.
var (
	withoutDetails = pgx.StrictNamedArgs{"metadata": []byte(`{}`), "attempts": []byte(`[]`), "reason": "the details could not be stored"}
	withoutContent = pgx.StrictNamedArgs{
		"event_id": nil, "type": nil, "producer": nil, "producer_seq": nil, "payload": []byte{},
		"reason": "the content could not be stored",
	}
)

// refusedPrefix keeps a refused message from sharing the dead letter of the event that it
// claims to be.
const refusedPrefix = "refused "

// row returns the columns of the dead letter of m, each within its bounds.
func (s *Store) row(m *message.Message) (pgx.StrictNamedArgs, error) {
	id, err := uuid.NewV7()
	if err != nil {
		return nil, fmt.Errorf("generate dead letter id: %w", err)
	}
	attempts := bus.Attempts(m)
	if len(attempts) == 0 {
		attempts = []bus.Attempt{{At: s.now().UTC(), Error: m.Metadata.Get(middleware.ReasonForPoisonedKey)}}
	}
	attempts = boundAttempts(attempts)
	var eventID, name, producer *string
	var seq *int64
	var epoch string
	messageID, refused := key(m.UUID), m.Metadata.Get(bus.RefusedKey) != ""
	if refused {
		messageID = refusedPrefix + messageID
	}
	if e, err := event.Parse(m.Payload); err == nil && m.Metadata.Get(bus.MalformedKey) == "" && e.ID == m.UUID {
		name = new(cut(e.Name, keyLimit))
		if !refused {
			producer, seq, epoch = new(cut(e.Producer, keyLimit)), &e.ProducerSeq, e.ProducerEpoch
		}
		if len(m.Payload) <= payloadLimit { // An event that was cut cannot be replayed.
			eventID = &e.ID
		}
	}
	return pgx.StrictNamedArgs{
		"id":              id,
		"message_id":      messageID,
		"event_id":        eventID,
		"type":            name,
		"producer":        producer,
		"producer_seq":    seq,
		"producer_epoch":  epoch,
		"stream":          key(m.Metadata.Get(bus.TopicKey)),
		"entry_id":        key(m.Metadata.Get(bus.EntryKey)),
		"reason":          cut(firstLine(m.Metadata.Get(middleware.ReasonForPoisonedKey)), reasonLimit),
		"class":           cut(m.Metadata.Get(bus.ClassKey), keyLimit),
		"attempts":        encode(attempts),
		"payload":         boundPayload(m.Payload),
		"metadata":        encode(boundMetadata(foreign(m.Metadata))),
		"first_failed_at": attempts[0].At,
		"last_failed_at":  attempts[len(attempts)-1].At,
		"refused":         refused,
	}, nil
}

// foreign returns the metadata that the message was published with.
func foreign(m message.Metadata) map[string]string {
	own := maps.Clone(map[string]string(m))
	for _, key := range []string{
		bus.TopicKey, bus.EntryKey, bus.MalformedKey, bus.AttemptsKey, bus.ClassKey, bus.CrashLoopKey, bus.RefusedKey,
		middleware.ReasonForPoisonedKey, middleware.PoisonedTopicKey, middleware.PoisonedHandlerKey, middleware.PoisonedSubscriberKey,
	} {
		delete(own, key)
	}
	return own
}

// firstLine removes the stack trace of a recovered panic; the attempts keep it.
func firstLine(s string) string {
	line, _, _ := strings.Cut(s, "\n")
	return line
}
