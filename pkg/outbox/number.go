package outbox

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/headgate/headgate/pkg/reconcile"
)

// useIndexes keeps the planner to the indexes made for the queue. Its statistics are
// mostly those of an empty queue, with which it would sort the whole of a long one
// for every batch. The high costs that this feigns must not start the JIT compiler.
const useIndexes = `SELECT set_config('enable_seqscan', 'off', true), set_config('enable_bitmapscan', 'off', true),
	set_config('enable_sort', 'off', true), set_config('jit', 'off', true)`

// limitLockWait bounds the wait for another relay that numbers rows of the same topic.
const limitLockWait = `SELECT set_config('lock_timeout', '2s', true)`

// The row with the last number of a topic is the lock under which one relay at a time
// numbers its rows, so that the numbers have no gap. The previous release updates the
// same row.
const (
	addSequence  = `INSERT INTO outbox_sequences (topic, last_seq) VALUES ($1, 0) ON CONFLICT (topic) DO NOTHING`
	lockSequence = `SELECT FROM outbox_sequences WHERE topic = $1 FOR UPDATE`
)

// numberOldest numbers those of the oldest unpublished rows of a topic that have no
// number, and returns how many rows it looked at. It leaves out rows that another relay
// has locked. Rows are selected by their state, not by a cursor over ids: ids are
// assigned in another order than transactions commit, and a cursor would skip late
// commits. The hourly checksums cover exactly the numbered events.
var numberOldest = `
	WITH present AS MATERIALIZED (
		SELECT incarnation = ` + incarnation + ` AS checked, epoch
		FROM outbox_sequences JOIN outbox_epochs USING (topic)
		WHERE topic = $1 AND outbox_epochs.last_seq IS NULL),
	oldest AS MATERIALIZED (
		SELECT id, event_id, seq
		FROM outbox
		WHERE topic = $1 AND published_at IS NULL
		ORDER BY topic, id + 0
		LIMIT $2
		FOR UPDATE SKIP LOCKED),
	unnumbered AS (
		SELECT id, event_id, row_number() OVER (ORDER BY id) AS position
		FROM oldest
		WHERE seq IS NULL AND (SELECT checked FROM present)),
	reserved AS (
		UPDATE outbox_sequences s
		SET last_seq = s.last_seq + new.count
		FROM (SELECT count(*) AS count FROM unnumbered) new
		WHERE s.topic = $1 AND new.count > 0
		RETURNING s.last_seq - new.count AS previous),
	numbered AS (
		UPDATE outbox
		SET seq = reserved.previous + unnumbered.position
		FROM unnumbered, reserved
		WHERE outbox.id = unnumbered.id),
	checksums AS (
		INSERT INTO outbox_epoch_checksums AS c (topic, epoch, hour, count, sum, last_seq)
		SELECT $1, (SELECT epoch FROM present), ` + reconcile.HourSQL("event_id") + `, count(*), sum(` + reconcile.HashSQL("event_id") + `), max(previous + position)
		FROM unnumbered, reserved
		GROUP BY 3
		ON CONFLICT (topic, epoch, hour) DO UPDATE
		SET count = c.count + excluded.count, sum = c.sum + excluded.sum, last_seq = greatest(c.last_seq, excluded.last_seq))
	SELECT count(*), coalesce((SELECT checked FROM present), false) FROM oldest`

// number numbers the oldest unpublished rows of a topic, and returns how many rows it
// looked at. It commits before anything is published: once a number may be on the
// stream, no rollback can withdraw it. The transactions that add events cannot number
// them: they would wait for each other, or leave gaps when they are rolled back.
//
// Everything is sent at once, as one implicit transaction: if this process stops at any
// moment, the database has either the whole of it, and releases the lock, or nothing.
//
// It numbers nothing, and returns checked false, if the numbers were not compared in this
// incarnation of the database.
func (r *Relay) number(ctx context.Context, topic string) (found int, checked bool, err error) {
	batch := &pgx.Batch{}
	batch.Queue(useIndexes)
	batch.Queue(limitLockWait)
	batch.Queue(addSequence, topic)
	batch.Queue(lockSequence, topic)
	batch.Queue(numberOldest, topic, batchSize).QueryRow(func(row pgx.Row) error { return row.Scan(&found, &checked) })
	if err := r.db.SendBatch(ctx, batch).Close(); err != nil {
		return 0, false, fmt.Errorf("number outbox rows of %s: %w", topic, err)
	}
	return found, checked, nil
}
