package outbox

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/pkg/postgres"
)

// The limits of a batch, which Redis receives as one transaction. It ends with the row
// that reaches batchBytes.
const (
	batchSize  = 500
	batchBytes = 1 << 20
)

const (
	stepTimeout    = 10 * time.Second
	publishTimeout = 5 * time.Second
)

// prepareClaim prepares the transaction that claims rows and marks them as published.
//
// It commits without waiting for the disk. If a crash of Postgres loses the marks, the
// rows are published again under the same ids and sequence numbers, and consumers
// ignore what they have already handled.
//
// Postgres ends it, and with it the locks on the rows, if this process hangs for longer
// than publishTimeout allows.
const prepareClaim = `SELECT set_config('synchronous_commit', 'off', true), set_config('idle_in_transaction_session_timeout', '7s', true)`

// claim locks the oldest numbered rows of a topic that no other relay has locked. A row
// is behind if another relay has locked an earlier row of the same subject: published
// now, it could overtake that row. If the count shows that the claimed rows are all
// unpublished rows up to the last of them, none is behind.
const claim = `
	WITH claimed AS MATERIALIZED (
		SELECT id, event_id, name, subject, seq, payload
		FROM outbox
		WHERE topic = $1 AND published_at IS NULL AND seq IS NOT NULL
		ORDER BY topic, id + 0
		LIMIT $2
		FOR UPDATE SKIP LOCKED),
	measured AS (
		SELECT *, count(*) OVER () AS total, sum(octet_length(payload::text)) OVER (ORDER BY id) - octet_length(payload::text) AS bytes_before
		FROM claimed)
	SELECT id, event_id::text, name, seq, payload, total,
		subject <> '' AND total
			< (SELECT count(*) FROM outbox WHERE topic = $1 AND published_at IS NULL AND id + 0 <= (SELECT max(id) FROM claimed))
		AND EXISTS (
			SELECT FROM outbox earlier
			WHERE earlier.published_at IS NULL AND earlier.subject <> ''
				AND earlier.topic = $1 AND earlier.subject = measured.subject
				AND earlier.id < measured.id AND earlier.id NOT IN (SELECT id FROM claimed)) AS behind
	FROM measured
	WHERE bytes_before < $3
	ORDER BY id`

type row struct {
	id      int64
	eventID string
	name    string
	seq     int64
	payload []byte
	behind  bool
}

// progress counts the rows of a step.
type progress struct {
	published, behind int
	more              bool // there may be rows after those of this step
}

// step publishes one batch of a topic. The rows stay locked while the broker is called
// and are marked only after it has answered.
func (r *Relay) step(ctx context.Context, topic string) (done progress, err error) {
	ctx, cancel := context.WithTimeout(ctx, stepTimeout)
	defer cancel()
	found, checked, err := r.number(ctx, topic)
	if err != nil || found == 0 {
		return progress{}, err
	}
	if !checked {
		if err := r.epochs.Check(ctx, event.Topic(topic)); err != nil {
			return progress{}, err
		}
		if _, checked, err = r.number(ctx, topic); err == nil && !checked {
			err = fmt.Errorf("number outbox rows of %s: %w", topic, errUnchecked)
		}
		if err != nil {
			return progress{}, err
		}
	}
	var claimed []row
	var epochs []epoch
	var total int
	read := &pgx.Batch{}
	read.Queue(useIndexes)
	read.Queue(prepareClaim)
	read.Queue(claim, topic, batchSize, batchBytes).Query(func(rows pgx.Rows) (err error) {
		claimed, err = pgx.CollectRows(rows, func(found pgx.CollectableRow) (row, error) {
			var b row
			err := found.Scan(&b.id, &b.eventID, &b.name, &b.seq, &b.payload, &total, &b.behind)
			return b, err
		})
		return err
	})
	read.Queue(readEpochs, topic).Query(func(rows pgx.Rows) (err error) {
		epochs, err = pgx.CollectRows(rows, scanEpoch)
		return err
	})
	err = postgres.Decide(ctx, r.db, read, func(_ postgres.Querier, write *pgx.Batch) error {
		ids, err := r.publish(ctx, batch{topic: topic, producer: r.epochs.producer, epochs: epochs, rows: claimed})
		if len(ids) > 0 {
			write.Queue(`UPDATE outbox SET published_at = clock_timestamp() WHERE id = ANY($1)`, ids)
		}
		done = progress{published: len(ids), behind: len(claimed) - len(ids), more: total == batchSize || total > len(claimed)}
		return err
	})
	if err != nil {
		return progress{}, fmt.Errorf("relay outbox rows of %s: %w", topic, err)
	}
	r.published.Add(float64(done.published))
	return done, nil
}

// publish publishes the rows that are not behind, and returns their ids once the broker
// has accepted all of them.
func (r *Relay) publish(ctx context.Context, b batch) (ids []int64, err error) {
	ctx, cancel := context.WithTimeout(ctx, publishTimeout)
	defer cancel()
	ready := make([]row, 0, len(b.rows))
	for _, row := range b.rows {
		if !row.behind {
			ready, ids = append(ready, row), append(ids, row.id)
		}
	}
	if len(ready) == 0 {
		return nil, nil
	}
	b.rows = ready
	if err := publish(ctx, r.publisher, b); err != nil {
		return nil, err
	}
	return ids, nil
}
