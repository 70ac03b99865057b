package outbox

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/jackc/pgx/v5"

	"github.com/headgate/headgate/pkg/reconcile"
)

// useIndexes keeps the planner to the indexes made for the queue. Its statistics are
// mostly those of an empty queue, with which it would sort the whole of a long one
// for every batch.
const useIndexes = `SELECT set_config('enable_seqscan', 'off', true), set_config('enable_bitmapscan', 'off', true), set_config('enable_sort', 'off', true)`

// numberingLock is the key of the advisory lock under which one relay at a time
// numbers rows, so that sequence numbers have no gap.
const (
	numberingLock   = 0x6f7574626f78 // "outbox"
	lockUntilCommit = `SELECT pg_advisory_xact_lock($1)`
)

// selectOldest reads the oldest unpublished rows that no other relay has locked.
// Rows are selected by their state, not by a cursor over ids: ids are assigned in
// another order than transactions commit, and a cursor would skip late commits.
const selectOldest = `
	SELECT id, topic, event_id::text, seq IS NULL
	FROM outbox
	WHERE published_at IS NULL
	ORDER BY id + 0
	LIMIT $1
	FOR UPDATE SKIP LOCKED`

const (
	reserveNumbers = `
		INSERT INTO outbox_sequences AS s (topic, last_seq) VALUES ($1, $2)
		ON CONFLICT (topic) DO UPDATE SET last_seq = s.last_seq + excluded.last_seq
		RETURNING last_seq`
	assignNumbers = `UPDATE outbox SET seq = $2::bigint + array_position($1::bigint[], id) WHERE id = ANY($1::bigint[])`
)

// updateChecksums runs in the transaction that numbers the events, so that the
// hourly checksums cover exactly the numbered events.
var updateChecksums = `
	INSERT INTO outbox_hourly_checksums AS c (topic, hour, count, sum, last_seq)
	SELECT $1, ` + reconcile.HourSQL("event_id") + `, count(*), sum(` + reconcile.HashSQL("event_id") + `), $2
	FROM unnest($3::uuid[]) AS e (event_id)
	GROUP BY 2
	ON CONFLICT (topic, hour) DO UPDATE
	SET count = c.count + excluded.count, sum = c.sum + excluded.sum, last_seq = greatest(c.last_seq, excluded.last_seq)`

// unnumbered are the rows of a topic without a sequence number, in the order of
// their ids.
type unnumbered struct {
	ids      []int64
	eventIDs []string
}

// numberOldest numbers the oldest unpublished rows and returns their ids. It
// commits before anything is published: once a number may be on the stream, no
// rollback can withdraw it. The transactions that add events cannot number them:
// they would wait for each other, or leave gaps when they are rolled back.
func (r *Relay) numberOldest(ctx context.Context) (ids []int64, err error) {
	err = pgx.BeginFunc(ctx, r.db, func(tx pgx.Tx) error {
		batch := &pgx.Batch{}
		batch.Queue(useIndexes)
		batch.Queue(lockUntilCommit, int64(numberingLock))
		topics := map[string]*unnumbered{}
		batch.Queue(selectOldest, batchSize).Query(func(rows pgx.Rows) error {
			var id int64
			var topic, eventID string
			var isUnnumbered bool
			_, err := pgx.ForEachRow(rows, []any{&id, &topic, &eventID, &isUnnumbered}, func() error {
				ids = append(ids, id)
				if !isUnnumbered {
					return nil
				}
				if topics[topic] == nil {
					topics[topic] = &unnumbered{}
				}
				u := topics[topic]
				u.ids, u.eventIDs = append(u.ids, id), append(u.eventIDs, eventID)
				return nil
			})
			return err
		})
		if err := tx.SendBatch(ctx, batch).Close(); err != nil {
			return err
		}
		for _, topic := range slices.Sorted(maps.Keys(topics)) {
			if err := numberTopic(ctx, tx, topic, topics[topic]); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("number outbox rows: %w", err)
	}
	return ids, nil
}

func numberTopic(ctx context.Context, tx pgx.Tx, topic string, u *unnumbered) error {
	var last int64
	if err := tx.QueryRow(ctx, reserveNumbers, topic, len(u.ids)).Scan(&last); err != nil {
		return err
	}
	batch := &pgx.Batch{}
	batch.Queue(assignNumbers, u.ids, last-int64(len(u.ids)))
	batch.Queue(updateChecksums, topic, last, u.eventIDs)
	return tx.SendBatch(ctx, batch).Close()
}
