package reconcile

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/headgate/headgate/pkg/bus"
	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/pkg/postgres"
)

// Records writes consumed-event records. It is safe for concurrent use.
type Records struct {
	db    *postgres.Pool
	topic event.Topic
	group *bus.GroupCommit[event.Event]
}

const (
	writeTimeout = 5 * time.Second
	writeLimit   = 500
)

// NewRecords returns the records of a topic in db, which must have RecordsSchema.
func NewRecords(db *postgres.Pool, topic event.Topic) *Records {
	r := &Records{db: db, topic: topic}
	r.group = bus.NewGroupCommit(bus.GroupCommitConfig[event.Event]{
		Write: r.write, Unavailable: postgres.Unavailable, Contended: postgres.Contended, Limit: writeLimit, Writers: 1, Timeout: writeTimeout,
	})
	return r
}

// Record says that the consumer needs nothing more from the event. Recording an
// event twice has no effect. Events without a sequence number are not recorded.
func (r *Records) Record(ctx context.Context, e event.Event) error {
	if e.ProducerSeq == 0 {
		return nil
	}
	return r.group.Do(ctx, e)
}

// write does not wait for the disk: if a crash of Postgres loses a record, the
// event is delivered again, without effect.
func (r *Records) write(ctx context.Context, events []event.Event) error {
	const query = `
		INSERT INTO consumed_events (topic, producer, epoch, seq, event_id)
		SELECT $1, producer, epoch, seq, event_id
		FROM unnest($2::text[], $3::text[], $4::bigint[], $5::uuid[]) AS r (producer, epoch, seq, event_id)
		ON CONFLICT DO NOTHING`
	producers, epochs := make([]string, len(events)), make([]string, len(events))
	seqs, ids := make([]int64, len(events)), make([]string, len(events))
	for i, e := range events {
		producers[i], epochs[i], seqs[i], ids[i] = e.Producer, e.ProducerEpoch, e.ProducerSeq, e.ID
	}
	batch := &pgx.Batch{} // one implicit transaction
	batch.Queue(`SELECT set_config('synchronous_commit', 'off', true)`)
	batch.Queue(postgres.LimitLockWait)
	batch.Queue(query, r.topic, producers, epochs, seqs, ids)
	if err := r.db.SendBatch(ctx, batch).Close(); err != nil {
		return fmt.Errorf("insert consumed-event records: %w", err)
	}
	return nil
}
