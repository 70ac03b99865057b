package reconcile

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// store keeps the watermark of each epoch. An older one does not replace a newer one,
// except that a closed epoch ends where the restored outbox says.
// An epoch that is new to this consumer begins at the first number that the producer
// can republish: nothing below it was ever offered to this consumer.
func (c *Consumer) store(ctx context.Context, w Watermark) error {
	const watermark = `
		INSERT INTO epoch_watermarks AS w (topic, producer, epoch, first_seq, held_seq, published_seq, end_seq, consumed_seq, reported_at, end_unknown, post_interval)
		VALUES (@topic, @producer, @epoch, greatest(@held, 1), @held, @published, @end, greatest(@held, 1) - 1, @at, @endUnknown, @interval::interval)
		ON CONFLICT (topic, producer, epoch) DO UPDATE
		SET held_seq = excluded.held_seq,
			published_seq = CASE WHEN @closed THEN excluded.published_seq ELSE greatest(w.published_seq, excluded.published_seq) END,
			end_seq = greatest(w.end_seq, excluded.end_seq), end_unknown = excluded.end_unknown,
			reported_at = excluded.reported_at, post_interval = excluded.post_interval,
			changed_at = CASE WHEN w.reported_at = excluded.reported_at THEN w.changed_at ELSE now() END`
	const hours = `
		INSERT INTO epoch_checksums AS h (topic, producer, epoch, hour, count, sum, last_seq)
		SELECT @topic, @producer, @epoch, hour, count, sum, last_seq
		FROM unnest(@hour::bigint[], @count::bigint[], @sum::numeric[], @last::bigint[]) AS t (hour, count, sum, last_seq)
		ON CONFLICT (topic, producer, epoch, hour) DO UPDATE
		SET count = excluded.count, sum = excluded.sum, last_seq = excluded.last_seq, matched = false, asked_at = NULL,
			accepted_count = NULL, accepted_sum = NULL
		WHERE (h.count, h.sum) <> (excluded.count, excluded.sum) AND excluded.last_seq >= h.last_seq`
	// The producer's database does not know these epochs any more.
	const forgotten = `
		UPDATE epoch_watermarks SET held_seq = end_seq + 1
		WHERE topic = @topic AND producer = @producer AND epoch <> ALL(@epochs::text[]) AND held_seq <= end_seq`
	batch, epochs := &pgx.Batch{}, []string{}
	for _, e := range w.epochs() {
		epochs = append(epochs, e.Epoch)
	}
	rest := c.finished.rest(w)
	for i, e := range rest {
		batch.Queue(watermark, pgx.StrictNamedArgs{
			"topic": w.Topic, "producer": w.Producer, "epoch": e.Epoch,
			"held": e.First, "published": e.Seq, "end": e.end(), "closed": i < len(rest)-1, "at": w.At, "endUnknown": e.EndUnknown, "interval": w.Interval,
		})
		var hour, count, last []int64
		var sum []string
		for _, h := range e.Hours {
			hour, count, sum, last = append(hour, h.Hour), append(count, h.Count), append(sum, h.Sum), append(last, h.LastSeq)
		}
		batch.Queue(hours, pgx.StrictNamedArgs{
			"topic": w.Topic, "producer": w.Producer, "epoch": e.Epoch, "hour": hour, "count": count, "sum": sum, "last": last,
		})
	}
	if w.hasEpochs() {
		batch.Queue(forgotten, pgx.StrictNamedArgs{"topic": w.Topic, "producer": w.Producer, "epochs": epochs})
	}
	if err := c.cfg.Database.SendBatch(ctx, batch).Close(); err != nil {
		return fmt.Errorf("store watermark of %s: %w", w.Producer, err)
	}
	return nil
}

// outdated reports whether a watermark comes from an instance of the previous release,
// although the producer already has instances that know epochs.
func (c *Consumer) outdated(ctx context.Context, w Watermark) (yes bool, err error) {
	if w.hasEpochs() {
		return false, nil
	}
	const query = `SELECT EXISTS (SELECT FROM epoch_watermarks WHERE topic = $1 AND producer = $2 AND held_seq > 0)`
	if err := c.cfg.Database.QueryRow(ctx, query, w.Topic, w.Producer).Scan(&yes); err != nil {
		return false, fmt.Errorf("read watermarks of %s: %w", w.Producer, err)
	}
	return yes, nil
}
