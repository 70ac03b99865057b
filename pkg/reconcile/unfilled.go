package reconcile

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// unfilled returns the ranges of an epoch that are not requested at present: the producer
// has answered a request for them not long ago, and they are missing nevertheless. It may
// have lost the rows, or the group cannot decode the events. They must not delay the
// request for others. A time that is too far in the future was written before a clock
// went back: it counts as over.
func (c *Consumer) unfilled(ctx context.Context, n numbers) ([]SeqRange, error) {
	const query = `
		SELECT first_seq, last_seq FROM unfilled_ranges
		WHERE topic = @topic AND producer = @producer AND epoch = @epoch AND next_at BETWEEN now() AND now() + interval '1 hour'
		ORDER BY first_seq`
	rows, err := c.cfg.Database.Query(ctx, query, n.args(nil))
	if err != nil {
		return nil, fmt.Errorf("read unfilled ranges: %w", err)
	}
	ranges, err := pgx.CollectRows(rows, scanRange)
	if err != nil {
		return nil, fmt.Errorf("read unfilled ranges: %w", err)
	}
	return ranges, nil
}

// noteUnfilled stores what is still missing of the ranges that the producer has been
// asked for. The pause before the next request for a range doubles each time, from 5
// seconds to an hour. All instances of the group share the pauses.
func (c *Consumer) noteUnfilled(ctx context.Context, w Watermark, asked []EpochRange, missing map[string][]SeqRange) error {
	const forget = `
		DELETE FROM unfilled_ranges
		WHERE topic = $1 AND producer = $2 AND next_at NOT BETWEEN now() - interval '1 hour' AND now() + interval '1 hour'`
	// The pause has begun if another instance has noted the same answer.
	const note = `
		INSERT INTO unfilled_ranges AS u (topic, producer, epoch, first_seq, last_seq, attempts, next_at)
		SELECT $1, $2, epoch, first, last, 1, now() + interval '5 seconds'
		FROM unnest($3::text[], $4::bigint[], $5::bigint[]) AS r (epoch, first, last)
		ON CONFLICT (topic, producer, epoch, first_seq, last_seq) DO UPDATE
		SET attempts = u.attempts + 1,
			next_at = now() + least(interval '1 hour', interval '5 seconds' * (1::bigint << least(u.attempts, 20)))
		WHERE u.next_at <= now()`
	var epoch []string
	var first, last []int64
	for _, r := range asked {
		for _, left := range within(missing[r.Epoch], r.SeqRange) {
			epoch, first, last = append(epoch, r.Epoch), append(first, left.First), append(last, left.Last)
		}
	}
	if len(epoch) == 0 {
		return nil
	}
	batch := &pgx.Batch{}
	batch.Queue(forget, w.Topic, w.Producer)
	batch.Queue(note, w.Topic, w.Producer, epoch, first, last)
	if err := c.cfg.Database.SendBatch(ctx, batch).Close(); err != nil {
		return fmt.Errorf("store unfilled ranges: %w", err)
	}
	return nil
}
