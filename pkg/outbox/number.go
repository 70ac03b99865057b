package outbox

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/jackc/pgx/v5"

	"github.com/headgate/headgate/pkg/reconcile"
)

// plan keeps the planner to the indexes made for the queue. Its statistics are
// mostly those of an empty queue, after which it would sort the whole of a long
// one for every batch.
const plan = `SELECT set_config('enable_seqscan', 'off', true), set_config('enable_bitmapscan', 'off', true), set_config('enable_sort', 'off', true)`

// numbering is the key of the advisory lock that one relay at a time numbers
// under, so that numbers are dense.
const (
	numbering = 0x6f7574626f78 // "outbox"
	lock      = `SELECT pg_advisory_xact_lock($1)`
)

// head reads the beginning of the queue, without what other relays have in hand.
// Rows are taken by their state, not by a cursor over ids: ids are given out in
// another order than transactions commit, and a cursor would skip the late.
const head = `
	SELECT id, topic, event_id::text, seq IS NULL
	FROM outbox
	WHERE published_at IS NULL
	ORDER BY id + 0
	LIMIT $1
	FOR UPDATE SKIP LOCKED`

const (
	raise = `
		INSERT INTO outbox_sequences AS s (topic, last_seq) VALUES ($1, $2)
		ON CONFLICT (topic) DO UPDATE SET last_seq = s.last_seq + excluded.last_seq
		RETURNING last_seq`
	give = `UPDATE outbox SET seq = $2::bigint + array_position($1::bigint[], id) WHERE id = ANY($1::bigint[])`
)

// tally counts events as they are numbered, so it counts exactly those.
var tally = `
	INSERT INTO outbox_hourly_checksums AS c (topic, hour, count, sum, last_seq)
	SELECT $1, ` + reconcile.HourSQL("event_id") + `, count(*), sum(` + reconcile.HashSQL("event_id") + `), $2
	FROM unnest($3::uuid[]) AS e (event_id)
	GROUP BY 2
	ON CONFLICT (topic, hour) DO UPDATE
	SET count = c.count + excluded.count, sum = c.sum + excluded.sum, last_seq = greatest(c.last_seq, excluded.last_seq)`

// fresh are the rows of a topic that have no number, in the order of their ids.
type fresh struct {
	ids    []int64
	events []string
}

// prepare numbers the rows at the head of the queue and returns their ids. It
// commits before anything is published: once a number may be on the stream, no
// rollback can take it back. The business's transactions cannot number, for they
// would wait for each other or leave gaps when they are rolled back.
func (r *Relay) prepare(ctx context.Context) (ids []int64, err error) {
	err = pgx.BeginFunc(ctx, r.db, func(tx pgx.Tx) error {
		batch := &pgx.Batch{}
		batch.Queue(plan)
		batch.Queue(lock, int64(numbering))
		unnumbered := map[string]*fresh{}
		batch.Queue(head, batchSize).Query(func(rows pgx.Rows) error {
			var id int64
			var topic, event string
			var isFresh bool
			_, err := pgx.ForEachRow(rows, []any{&id, &topic, &event, &isFresh}, func() error {
				ids = append(ids, id)
				if !isFresh {
					return nil
				}
				if unnumbered[topic] == nil {
					unnumbered[topic] = &fresh{}
				}
				f := unnumbered[topic]
				f.ids, f.events = append(f.ids, id), append(f.events, event)
				return nil
			})
			return err
		})
		if err := tx.SendBatch(ctx, batch).Close(); err != nil {
			return err
		}
		for _, topic := range slices.Sorted(maps.Keys(unnumbered)) {
			if err := numberRows(ctx, tx, topic, unnumbered[topic]); err != nil {
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

func numberRows(ctx context.Context, tx pgx.Tx, topic string, f *fresh) error {
	var last int64
	if err := tx.QueryRow(ctx, raise, topic, len(f.ids)).Scan(&last); err != nil {
		return err
	}
	batch := &pgx.Batch{}
	batch.Queue(give, f.ids, last-int64(len(f.ids)))
	batch.Queue(tally, topic, last, f.events)
	return tx.SendBatch(ctx, batch).Close()
}
