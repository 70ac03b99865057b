package deadletter

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/jackc/pgx/v5"

	"github.com/headgate/headgate/pkg/bus"
	"github.com/headgate/headgate/pkg/web"
)

// Metadata of a replayed message.
const (
	idKey    = "headgate_dead_letter"
	leaseKey = "headgate_lease" // when the lease of this instance expires
)

const (
	// lease is how long a replay may take before another instance takes it over.
	lease       = 5 * time.Minute
	replayBatch = 32
)

// NewReplays returns a subscriber that delivers the messages of replaying dead
// letters to this service's consumer. They do not go through the stream, where
// other services would receive the event again. Several instances share the work.
func NewReplays(store *Store, log *slog.Logger) message.Subscriber {
	return bus.NewPoller(bus.PollerConfig{Take: store.take, Complete: store.completeReplay, Release: store.releaseReplay, Log: log})
}

// take leases the replays that are due, the longest due first.
func (s *Store) take(ctx context.Context, topic string) ([]*message.Message, error) {
	const query = `
		UPDATE dead_letters SET replay_due = @until
		WHERE id IN (
			SELECT id FROM dead_letters
			WHERE replay_due <= @now AND stream = @stream
			ORDER BY replay_due, id
			LIMIT @limit
			FOR UPDATE SKIP LOCKED)
		RETURNING id::text, message_id, stream, entry_id, payload, metadata`
	now := s.now()
	until := now.Add(lease).Truncate(time.Microsecond) // the precision of Postgres
	rows, err := s.db.Query(ctx, query, pgx.StrictNamedArgs{"now": now, "until": until, "stream": topic, "limit": replayBatch})
	if err != nil {
		return nil, fmt.Errorf("lease dead letters: %w", err)
	}
	messages, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (*message.Message, error) {
		var id, messageID, stream, entry string
		var payload []byte
		var metadata map[string]string
		if err := row.Scan(&id, &messageID, &stream, &entry, &payload, &metadata); err != nil {
			return nil, err
		}
		m := message.NewMessage(messageID, payload)
		m.Metadata = metadata
		m.Metadata.Set(idKey, id)
		m.Metadata.Set(leaseKey, until.Format(time.RFC3339Nano))
		m.Metadata.Set(bus.TopicKey, stream)
		m.Metadata.Set(bus.EntryKey, entry)
		return m, nil
	})
	if err != nil {
		return nil, fmt.Errorf("lease dead letters: %w", err)
	}
	return messages, nil
}

// completeReplay marks the dead letter of an acknowledged message as replayed, if
// it is still replaying under the message's lease: a failure was recorded before
// the acknowledgement and ended it.
func (s *Store) completeReplay(ctx context.Context, m *message.Message) error {
	const query = `
		UPDATE dead_letters SET status = 'replayed', replay_due = NULL, closed_at = @now
		WHERE id = @id AND replay_due = @lease`
	return s.endLease(ctx, m, query)
}

// releaseReplay makes the replay of a message due again at once.
func (s *Store) releaseReplay(ctx context.Context, m *message.Message) error {
	const query = `UPDATE dead_letters SET replay_due = @now WHERE id = @id AND replay_due = @lease`
	return s.endLease(ctx, m, query)
}

func (s *Store) endLease(ctx context.Context, m *message.Message, query string) error {
	ctx, cancel := context.WithTimeout(ctx, writeTimeout)
	defer cancel()
	id, lease, ok := replayOf(m)
	if !ok {
		return fmt.Errorf("end replay of dead letter %q: no lease", id)
	}
	if _, err := s.db.Exec(ctx, query, pgx.StrictNamedArgs{"id": id, "lease": lease, "now": s.now()}); err != nil {
		return fmt.Errorf("end replay of dead letter %s: %w", id, err)
	}
	return nil
}

// replayOf returns the dead letter that m replays, and when its lease expires. ok is
// false for any other message, also if its publisher set metadata of the same names.
func replayOf(m *message.Message) (id string, lease time.Time, ok bool) {
	id = m.Metadata.Get(idKey)
	lease, err := time.Parse(time.RFC3339Nano, m.Metadata.Get(leaseKey))
	return id, lease, err == nil && web.ValidID(id)
}
