package reconcile

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/headgate/headgate/pkg/postgres"
)

const (
	chunkLimit = 10_000 // ids in one request
	// askAgain is how long a difference stays unasked after the producer had nothing
	// to add to it.
	askAgain = "1 hour"
)

// compareHours compares the hours whose numbers all have a record, and hours that are
// over although some of their numbers stay missing. It is called when nothing else is
// requested. For the first that differs it requests what the producer has and the group
// has not. An hour with more records than published events, to which the producer had
// nothing to add, is a surplus: nothing is republished.
func (c *Consumer) compareHours(ctx context.Context, w, proven Watermark, found *findings) error {
	lost := proven.byEpoch()
	for _, e := range c.finished.rest(w) {
		n := numbers{w.Topic, w.Producer, e.Epoch}
		hours, err := c.openHours(ctx, n, min(e.Seq, lost[e.Epoch].Seq))
		if err != nil {
			return err
		}
		for _, h := range hours {
			recorded, err := recordedChecksum(ctx, c.cfg.Database, n, h.HourlyChecksum)
			if err != nil {
				return err
			}
			matches := recorded.matches(h.HourlyChecksum)
			if !matches && h.asked {
				if matches, err = lacksAccepted(ctx, c.cfg.Database, n, h.HourlyChecksum, recorded); err != nil {
					return err
				}
			}
			if matches {
				if err := c.markMatched(ctx, n, h.HourlyChecksum); err != nil {
					return err
				}
				continue
			}
			found.complete[e.Epoch] = false
			if h.asked {
				found.surplus += max(0, recorded.Count-h.Count)
				continue
			}
			if found.request.Chunk == nil {
				if found.request.Chunk, err = c.chunk(ctx, n, h.Hour); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// openHour is the published checksum of an hour that has not matched yet.
type openHour struct {
	HourlyChecksum
	asked bool // not long ago, and the producer had nothing to add
}

// openHours returns the hours to compare. Every number up to proven has a record, or the
// producer had nothing to add.
func (c *Consumer) openHours(ctx context.Context, n numbers, proven int64) ([]openHour, error) {
	const query = `
		SELECT h.hour, h.count, h.sum::text, h.last_seq,
			coalesce(h.asked_at BETWEEN now() - @again::interval AND now(), false)
		FROM epoch_checksums h
			JOIN epoch_watermarks w USING (topic, producer, epoch)
		WHERE topic = @topic AND producer = @producer AND epoch = @epoch AND NOT matched AND NOT purged
			AND (h.last_seq <= w.consumed_seq OR h.last_seq <= @proven AND hour < floor(extract(epoch FROM now()) / 3600))
			AND hour >= extract(epoch FROM now() - @retention::interval) / 3600
		ORDER BY hour`
	rows, err := c.cfg.Database.Query(ctx, query, n.args(pgx.StrictNamedArgs{"again": askAgain, "retention": OutboxRetention, "proven": proven}))
	if err != nil {
		return nil, fmt.Errorf("read published checksums: %w", err)
	}
	hours, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (openHour, error) {
		var h openHour
		err := row.Scan(&h.Hour, &h.Count, &h.Sum, &h.LastSeq, &h.asked)
		return h, err
	})
	if err != nil {
		return nil, fmt.Errorf("read published checksums: %w", err)
	}
	return hours, nil
}

func (c *Consumer) markMatched(ctx context.Context, n numbers, h HourlyChecksum) error {
	const query = `
		UPDATE epoch_checksums SET matched = true
		WHERE topic = @topic AND producer = @producer AND epoch = @epoch AND hour = @hour AND (count, sum) = (@count, @sum::numeric)
			AND ` + databaseSQL + ` = @database`
	args := n.args(pgx.StrictNamedArgs{"hour": h.Hour, "count": h.Count, "sum": h.Sum, "database": c.database})
	if _, err := c.cfg.Database.Exec(ctx, query, args); err != nil {
		return fmt.Errorf("mark the checksum of an hour as matched: %w", err)
	}
	return nil
}

// chunk returns the next part of an hour to ask for: after the part that the producer
// answered last.
func (c *Consumer) chunk(ctx context.Context, n numbers, hour int64) (*HourChunk, error) {
	const query = `
		SELECT event_id::text FROM consumed_events
		WHERE topic = @topic AND producer = @producer AND epoch = @epoch AND event_id >= @from AND event_id < @until
		ORDER BY event_id
		LIMIT @limit`
	from, until := HourIDs(hour)
	if next := c.next[n.producer]; next.Epoch == n.epoch && next.Hour == hour {
		from = next.From
	}
	rows, err := c.cfg.Database.Query(ctx, query, n.args(pgx.StrictNamedArgs{"from": from, "until": until, "limit": chunkLimit + 1}))
	if err != nil {
		return nil, fmt.Errorf("read recorded event ids: %w", err)
	}
	ids, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return nil, fmt.Errorf("read recorded event ids: %w", err)
	}
	if len(ids) > chunkLimit {
		ids, until = ids[:chunkLimit], ids[chunkLimit]
	}
	return &HourChunk{Epoch: n.epoch, Hour: hour, From: from, Until: until, IDs: ids}, nil
}

// noteAnswer notes that the producer has answered the request of this instance, if it
// has. What is still missing by epoch stays so for the time being. The answer may be one
// to another instance: then the request has to be repeated. A producer that does not say
// what it has answered is believed.
func (c *Consumer) noteAnswer(ctx context.Context, w Watermark, missing map[string][]SeqRange) error {
	asked, ok := c.asked[w.Producer]
	if !ok || w.Answers[c.cfg.Group] <= asked.Answers {
		return nil
	}
	answered, named := w.Answered[c.cfg.Group]
	if named && answered.Digest != asked.Digest() {
		return nil
	}
	delete(c.asked, w.Producer)
	if asked.Chunk == nil {
		return c.noteUnfilled(ctx, w, asked.Ranges, missing)
	}
	if answered.Partly {
		return nil
	}
	return c.noteChunk(ctx, w, *asked.Chunk)
}

// noteChunk moves on to the next part of an hour. After the last part, the producer has
// nothing to add.
func (c *Consumer) noteChunk(ctx context.Context, w Watermark, chunk HourChunk) error {
	if _, end := HourIDs(chunk.Hour); chunk.Until < end {
		c.next[w.Producer] = HourChunk{Epoch: chunk.Epoch, Hour: chunk.Hour, From: chunk.Until}
		return nil
	}
	delete(c.next, w.Producer)
	const query = `
		UPDATE epoch_checksums SET asked_at = now()
		WHERE topic = @topic AND producer = @producer AND epoch = @epoch AND hour = @hour`
	n := numbers{w.Topic, w.Producer, chunk.Epoch}
	if _, err := c.cfg.Database.Exec(ctx, query, n.args(pgx.StrictNamedArgs{"hour": chunk.Hour})); err != nil {
		return fmt.Errorf("note that the producer was asked for an hour: %w", err)
	}
	return nil
}

// recordedChecksum returns the checksum of the records of the events that a published
// checksum covers: those whose ids were made in its hour, up to its last number.
func recordedChecksum(ctx context.Context, db postgres.Querier, n numbers, published HourlyChecksum) (HourlyChecksum, error) {
	query := `
		SELECT count(*), coalesce(sum(` + HashSQL("event_id") + `), 0)::text, coalesce(max(seq), 0)
		FROM consumed_events
		WHERE topic = @topic AND producer = @producer AND epoch = @epoch AND event_id >= @low AND event_id < @high AND seq <= @last`
	low, high := HourIDs(published.Hour)
	c := HourlyChecksum{Hour: published.Hour}
	args := n.args(pgx.StrictNamedArgs{"low": low, "high": high, "last": published.LastSeq})
	if err := db.QueryRow(ctx, query, args).Scan(&c.Count, &c.Sum, &c.LastSeq); err != nil {
		return HourlyChecksum{}, fmt.Errorf("compute the checksum of recorded events: %w", err)
	}
	return c, nil
}
