package deadletter

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/jackc/pgx/v5"

	"github.com/headgate/headgate/pkg/bus"
)

const (
	// leaseTime is how long a replay may take before another instance takes it over,
	// unless the lease is renewed.
	leaseTime = 5 * time.Minute
	renewal   = time.Minute
)

// Replays returns the configuration of a bus.Poller that delivers the messages of
// replaying dead letters to this service's consumer. They do not go through the
// stream, where other services would receive the event again. Several instances share
// the work.
func (s *Store) Replays(log *slog.Logger) bus.PollerConfig { return s.ReplaysIf("true", log) }

// ReplaysIf returns Replays that delivers nothing while an SQL condition is false: while
// nobody knows yet whether the database was restored, what is replaying in it may have been
// replayed before.
func (s *Store) ReplaysIf(condition string, log *slog.Logger) bus.PollerConfig {
	take := func(ctx context.Context, topic string, limit int) ([]*message.Message, error) {
		return s.take(ctx, condition, topic, limit)
	}
	return bus.PollerConfig{
		Take: take, Renew: s.renewReplay, Complete: s.completeReplay, Release: s.releaseReplay, RenewEvery: renewal, Log: log,
	}
}

// CancelReplays makes every replaying dead letter open again, and returns how many those
// were. It is for a database that was restored: the lost one may have completed the replays,
// so an operator requests them again. A replay in flight does not change its dead letter any
// more.
func (s *Store) CancelReplays(ctx context.Context) (int64, error) {
	const query = `UPDATE dead_letters SET status = 'open', replay_due = NULL, closed_by = '' WHERE status = 'replaying'`
	tag, err := s.db.Exec(ctx, query)
	if err != nil {
		return 0, fmt.Errorf("cancel replays: %w", err)
	}
	return tag.RowsAffected(), nil
}

// replay is the lease of a dead letter's replay. The time when it expires tells it
// from the lease of another instance.
type replay struct {
	id string

	mu      sync.Mutex // held while the lease changes in the database
	expires time.Time
}

type replayKey struct{}

// replayOf returns the replay that m is, or nil for any other message.
func replayOf(m *message.Message) *replay {
	r, _ := m.Context().Value(replayKey{}).(*replay)
	return r
}

func (s *Store) leaseEnd() time.Time {
	return s.now().Add(leaseTime).Truncate(time.Microsecond) // the precision of Postgres
}

// take leases the replays that are due if the condition is true, the longest due first.
func (s *Store) take(ctx context.Context, condition, topic string, limit int) ([]*message.Message, error) {
	query := `
		UPDATE dead_letters SET replay_due = @until
		WHERE id IN (
			SELECT id FROM dead_letters
			WHERE replay_due <= @now AND stream = @stream AND (` + condition + `)
			ORDER BY replay_due, id
			LIMIT @limit
			FOR UPDATE SKIP LOCKED)
		RETURNING id::text, coalesce(event_id::text, message_id), stream, entry_id, payload, metadata, refused`
	until := s.leaseEnd()
	rows, err := s.db.Query(ctx, query, pgx.StrictNamedArgs{"now": s.now(), "until": until, "stream": topic, "limit": limit})
	if err != nil {
		return nil, fmt.Errorf("lease dead letters: %w", err)
	}
	messages, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (*message.Message, error) {
		var id, messageID, stream, entry string
		var payload []byte
		var metadata map[string]string
		var refused bool
		if err := row.Scan(&id, &messageID, &stream, &entry, &payload, &metadata, &refused); err != nil {
			return nil, err
		}
		m := message.NewMessage(messageID, payload)
		m.Metadata = metadata
		m.Metadata.Set(bus.TopicKey, stream)
		m.Metadata.Set(bus.EntryKey, entry)
		if refused {
			m.Metadata.Set(bus.RefusedKey, "before") // The consumer checks it again.
		}
		m.SetContext(context.WithValue(context.WithoutCancel(ctx), replayKey{}, &replay{id: id, expires: until}))
		return m, nil
	})
	if err != nil {
		return nil, fmt.Errorf("lease dead letters: %w", err)
	}
	return messages, nil
}

// renewReplay makes the lease of a message's replay last for leaseTime from now. It
// fails if the lease has expired and another instance has taken the replay over.
func (s *Store) renewReplay(ctx context.Context, m *message.Message) error {
	const query = `UPDATE dead_letters SET replay_due = @until WHERE id = @id AND replay_due = @lease`
	ctx, cancel := context.WithTimeout(ctx, writeTimeout)
	defer cancel()
	r, until := replayOf(m), s.leaseEnd()
	r.mu.Lock()
	defer r.mu.Unlock()
	tag, err := s.db.Exec(ctx, query, pgx.StrictNamedArgs{"id": r.id, "lease": r.expires, "until": until})
	if err != nil {
		return fmt.Errorf("renew replay of dead letter %s: %w", r.id, err)
	}
	if tag.RowsAffected() == 0 {
		return fmt.Errorf("renew replay of dead letter %s: the lease has ended", r.id)
	}
	r.expires = until
	return nil
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
	r := replayOf(m)
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, err := s.db.Exec(ctx, query, pgx.StrictNamedArgs{"id": r.id, "lease": r.expires, "now": s.now()}); err != nil {
		return fmt.Errorf("end replay of dead letter %s: %w", r.id, err)
	}
	return nil
}
