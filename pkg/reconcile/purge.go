package reconcile

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

const (
	purgeEvery = time.Hour
	purgeBatch = 10_000
)

// purge deletes old records up to the consumed watermark: those above still tell what
// is missing.
func (c *Consumer) purge(ctx context.Context) {
	if c.cfg.Retention == 0 {
		return
	}
	if err := c.purgeRecords(ctx); err != nil && ctx.Err() == nil {
		c.cfg.Log.WarnContext(ctx, "consumed-event record purge failed; retrying",
			"error", err.Error(), "next_in_ms", purgeEvery.Milliseconds())
	}
}

func (c *Consumer) purgeRecords(ctx context.Context) error {
	const checksums = `DELETE FROM epoch_checksums WHERE topic = $1 AND hour < extract(epoch FROM now() - $2::interval) / 3600`
	if err := c.correctFuture(ctx); err != nil {
		return err
	}
	producers, err := consumedIn(ctx, c.cfg.Database, c.cfg.Topic)
	if err != nil {
		return err
	}
	for producer, epochs := range producers {
		for epoch, consumed := range epochs {
			n := numbers{c.cfg.Topic, producer, epoch}
			if err := c.purgeOldest(ctx, n, consumed.Seq); err != nil {
				return err
			}
			if epoch == "" {
				if err := c.skipPurged(ctx, n); err != nil {
					return err
				}
			}
		}
	}
	if _, err := c.cfg.Database.Exec(ctx, checksums, c.cfg.Topic, c.cfg.Retention); err != nil {
		return fmt.Errorf("delete checksums: %w", err)
	}
	return nil
}

// purgeOldest deletes records from the lowest number on, up to consumed, until one is
// young. So the numbers that have a record stay without a gap, however late a record
// came. The statement that deletes them says that they need no record any more, and that
// the checksums of their hours cannot be compared any more.
func (c *Consumer) purgeOldest(ctx context.Context, n numbers, consumed int64) error {
	query := `
		WITH oldest AS MATERIALIZED (
			SELECT ctid, seq, consumed_at FROM consumed_events
			WHERE topic = @topic AND producer = @producer AND epoch = @epoch AND seq <= @consumed
			ORDER BY topic, producer, epoch, seq
			LIMIT @limit),
		purged AS (
			DELETE FROM consumed_events WHERE ctid = ANY(array(
				SELECT ctid FROM oldest
				WHERE seq < coalesce((SELECT min(seq) FROM oldest WHERE consumed_at >= now() - @retention::interval), @consumed::bigint + 1)))
			RETURNING seq, ` + HourSQL("event_id") + ` AS hour),
		hours AS (
			UPDATE epoch_checksums SET purged = true
			WHERE topic = @topic AND producer = @producer AND epoch = @epoch AND NOT purged AND hour IN (SELECT hour FROM purged)),
		watermark AS (
			UPDATE epoch_watermarks SET first_seq = greatest(first_seq, (SELECT max(seq) + 1 FROM purged))
			WHERE topic = @topic AND producer = @producer AND epoch = @epoch AND EXISTS (SELECT FROM purged))
		SELECT count(*) FROM purged`
	args := n.args(pgx.StrictNamedArgs{"consumed": consumed, "retention": c.cfg.Retention, "limit": purgeBatch})
	for {
		var purged int
		if err := c.cfg.Database.QueryRow(ctx, query, args).Scan(&purged); err != nil {
			return fmt.Errorf("delete consumed-event records: %w", err)
		}
		if purged < purgeBatch {
			return nil
		}
	}
}

// correctFuture makes records that were written while the clock was ahead records of now.
// They would keep those after them until that time has come.
func (c *Consumer) correctFuture(ctx context.Context) error {
	const query = `
		UPDATE consumed_events SET consumed_at = now()
		WHERE ctid = ANY(array(
			SELECT ctid FROM consumed_events WHERE topic = $1 AND consumed_at > now() + interval '1 minute' LIMIT $2))`
	for {
		tag, err := c.cfg.Database.Exec(ctx, query, c.cfg.Topic, purgeBatch)
		if err != nil {
			return fmt.Errorf("correct times of consumed-event records: %w", err)
		}
		if tag.RowsAffected() < purgeBatch {
			return nil
		}
	}
}

// skipPurged passes the numbers whose records the previous release has purged. It deletes
// by time, not by number, and does not say so in epoch_watermarks. It knows no epoch, so
// this concerns the one without a name. If the first number has no record, the numbers up
// to the last hole were purged: the consumed watermark is above them.
func (c *Consumer) skipPurged(ctx context.Context, n numbers) error {
	const query = `
		UPDATE epoch_watermarks w SET first_seq = coalesce((
			SELECT max(seq)
			FROM (
				SELECT seq, lag(seq, 1, w.first_seq - 1) OVER (ORDER BY seq) AS previous FROM consumed_events e
				WHERE e.topic = w.topic AND e.producer = w.producer AND e.epoch = w.epoch AND e.seq BETWEEN w.first_seq AND w.consumed_seq
			) AS pairs
			WHERE seq > previous + 1), consumed_seq + 1)
		WHERE topic = @topic AND producer = @producer AND epoch = @epoch AND first_seq <= consumed_seq
			AND NOT EXISTS (
				SELECT FROM consumed_events e
				WHERE e.topic = w.topic AND e.producer = w.producer AND e.epoch = w.epoch AND e.seq = w.first_seq)`
	if _, err := c.cfg.Database.Exec(ctx, query, n.args(nil)); err != nil {
		return fmt.Errorf("pass records that the previous release has purged: %w", err)
	}
	return nil
}
