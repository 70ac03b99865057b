// Package receipt is a consumer's side of completeness: it keeps a receipt for
// each event that is settled, compares them with what the producers say they
// have published, and asks again for what is missing. The other side is in
// package outbox.
package receipt

import (
	"context"
	"embed"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/headgate/headgate/pkg/bus"
	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/pkg/postgres"
)

//go:embed migrations
var migrations embed.FS

// Schema returns the migrations of the receipts.
func Schema() postgres.Schema {
	return postgres.NewSchema("receipts", migrations, "migrations/receipts")
}

// LedgerSchema returns the migrations of what the producers say. A service whose
// own tables are its receipts has this and a view named receipts with the columns
// topic, producer, seq and event_id, in place of Schema.
func LedgerSchema() postgres.Schema {
	return postgres.NewSchema("ledger", migrations, "migrations/ledger")
}

const (
	writeTimeout = 5 * time.Second
	writeLimit   = 500
)

// Book writes receipts.
type Book struct {
	db    *pgxpool.Pool
	topic event.Topic
	group *bus.GroupCommit[event.Event]
}

// NewBook returns the receipts in db, which must have Schema.
func NewBook(db *pgxpool.Pool, topic event.Topic) *Book {
	b := &Book{db: db, topic: topic}
	b.group = bus.NewGroupCommit(bus.GroupCommitConfig[event.Event]{
		Write: b.write, Unavailable: postgres.Unavailable, Limit: writeLimit, Writers: 1, Timeout: writeTimeout,
	})
	return b
}

// Settled notes that nothing more will be done about the event. Events without a
// number are not accounted for.
func (b *Book) Settled(ctx context.Context, e event.Event) error {
	if e.ProducerSeq == 0 {
		return nil
	}
	return b.group.Do(ctx, e)
}

// write does not wait for the disk: a receipt that a crash of Postgres takes
// back makes the event come again, to no effect.
func (b *Book) write(ctx context.Context, events []event.Event) error {
	const query = `
		INSERT INTO receipts (topic, producer, seq, event_id)
		SELECT $1, producer, seq, event_id FROM unnest($2::text[], $3::bigint[], $4::uuid[]) AS r (producer, seq, event_id)
		ON CONFLICT DO NOTHING`
	producers, seqs, ids := make([]string, len(events)), make([]int64, len(events)), make([]string, len(events))
	for i, e := range events {
		producers[i], seqs[i], ids[i] = e.Producer, e.ProducerSeq, e.ID
	}
	batch := &pgx.Batch{} // one implicit transaction
	batch.Queue(`SELECT set_config('synchronous_commit', 'off', true)`)
	batch.Queue(query, b.topic, producers, seqs, ids)
	if err := b.db.SendBatch(ctx, batch).Close(); err != nil {
		return fmt.Errorf("insert receipts: %w", err)
	}
	return nil
}
