// Package outbox carries events from a service's database to the streams. A
// state change and its events commit together; a relay publishes what has
// committed, and marks it only after Redis has answered. So an event can be
// published twice, but never lost, and never published for a change that was
// rolled back.
//
// On each topic a producer's events are numbered without a gap, and events of one
// subject are published in the order in which they were committed. Events that the
// broker lost are published again, see package reconcile.
package outbox

import (
	"context"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/pkg/postgres"
)

//go:embed migrations/*.sql
var migrations embed.FS

// Schema returns the migrations of the outbox table.
func Schema() postgres.Schema { return postgres.NewSchema("outbox", migrations, "migrations") }

// channel is the NOTIFY channel that wakes the relays of this database.
const channel = "outbox"

// MaxEventBytes is the size of the largest event that a Box accepts, encoded. Redis
// refuses entries of 512 MiB, or of 1 MiB if proto-max-bulk-len is set to its minimum.
// Requests are limited to 64 KiB, so an event that is larger is a fault of the program.
const MaxEventBytes = 256 << 10

// ErrTooLarge says that an event has more than MaxEventBytes, so that it might never be
// published.
var ErrTooLarge = errors.New("event is too large")

const insert = `
	INSERT INTO outbox (event_id, topic, name, subject, payload)
	VALUES ($1, $2, $3, $4, $5)`

const wake = `SELECT pg_notify($1, '')`

// Box writes a producer's events. It is safe for concurrent use.
type Box struct {
	producer string
	known    bool // whether event knows which events it may publish
	started  time.Time
	notified atomic.Int64 // when a relay was last woken, since started
}

// New returns the outbox of a producer, the service's name.
func New(producer string) *Box {
	b := &Box{producer: producer, known: slices.Contains(event.Producers(), producer), started: time.Now()}
	b.notified.Store(-int64(notifyEvery))
	return b
}

// notifyEvery keeps NOTIFY rare: transactions with a NOTIFY commit one after the
// other, each with a disk write of its own. A relay keeps looking for rows for
// longer than this after it was woken, so the next transactions need no NOTIFY.
// Only an event that follows a NOTIFY which was rolled back waits for the poll.
const notifyEvery = 20 * time.Millisecond

// notify reports whether it is time to wake the relays.
func (b *Box) notify() bool {
	last, now := b.notified.Load(), int64(time.Since(b.started))
	return now-last >= int64(notifyEvery) && b.notified.CompareAndSwap(last, now)
}

// Add writes events to every topic they go to, within tx. It gives each event
// that has none its id, in place. Nothing is published before tx commits. The error
// wraps ErrTooLarge if an event is too large, and event.ErrWrongProducer if its consumers
// would refuse it from this producer; tx must then be rolled back.
func (b *Box) Add(ctx context.Context, tx pgx.Tx, events ...event.Event) error {
	batch := &pgx.Batch{}
	if err := b.Queue(batch, events...); err != nil || batch.Len() == 0 {
		return err
	}
	if err := tx.SendBatch(ctx, batch).Close(); err != nil {
		return fmt.Errorf("insert outbox: %w", err)
	}
	return nil
}

// Queue is Add for a caller that sends a batch of its own, which must run in
// one transaction.
func (b *Box) Queue(batch *pgx.Batch, events ...event.Event) error {
	if err := b.QueueSilently(batch, events...); err != nil {
		return err
	}
	if len(events) > 0 && b.notify() {
		batch.Queue(wake, channel)
	}
	return nil
}

// QueueSilently is Queue for a transaction that waits for something else before it commits.
// It wakes no relay: events that others add meanwhile would count on a NOTIFY that is only
// sent at the commit. The caller calls Wake after the commit.
func (b *Box) QueueSilently(batch *pgx.Batch, events ...event.Event) error {
	for i := range events {
		e := &events[i]
		if e.ID == "" {
			id, err := uuid.NewV7()
			if err != nil {
				return fmt.Errorf("generate event id: %w", err)
			}
			e.ID = id.String()
		}
		e.Producer = b.producer
		payload, err := json.Marshal(e)
		if err != nil {
			return fmt.Errorf("encode event %s: %w", e.Name, err)
		}
		if len(payload) > MaxEventBytes {
			return fmt.Errorf("encode event %s: %w: %d bytes, the limit is %d", e.Name, ErrTooLarge, len(payload), MaxEventBytes)
		}
		for _, topic := range e.Topics {
			if err := b.check(topic, *e); err != nil {
				return fmt.Errorf("add event: %w", err)
			}
			batch.Queue(insert, e.ID, string(topic), e.Name, e.Subject, payload)
		}
	}
	return nil
}

// check returns an error if the consumers of topic would refuse e. It belongs to the change
// that the event is part of: once published, such an event is a dead letter.
func (b *Box) check(topic event.Topic, e event.Event) error {
	if !b.known {
		return nil
	}
	return event.CheckProducer(topic, e)
}

// Wake wakes the relays, unless they were just woken. If it fails, they find the events a
// second later.
func (b *Box) Wake(ctx context.Context, db *postgres.Pool) error {
	if !b.notify() {
		return nil
	}
	batch := &pgx.Batch{}
	batch.Queue(`SELECT set_config('synchronous_commit', 'off', true)`) // There is nothing to keep.
	batch.Queue(wake, channel)
	if err := db.SendBatch(ctx, batch).Close(); err != nil {
		return fmt.Errorf("wake the relays: %w", err)
	}
	return nil
}
