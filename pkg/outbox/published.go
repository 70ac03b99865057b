package outbox

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/pkg/postgres"
	"github.com/headgate/headgate/pkg/reconcile"
)

// Published is the part of an outbox that a relay has numbered. It implements
// reconcile.Outbox and is safe for concurrent use.
type Published struct {
	*Epochs
	db        *postgres.Pool
	publisher Publisher
	instance  string // names this process
}

var _ reconcile.Outbox = (*Published)(nil)

// NewPublished returns the published rows of the outbox in db. It republishes them
// through publisher.
func NewPublished(db *postgres.Pool, publisher Publisher, epochs *Epochs) *Published {
	return &Published{Epochs: epochs, db: db, publisher: publisher, instance: rand.Text()}
}

// Topics implements reconcile.Outbox. It includes the topics on which nothing was
// published yet: the consumers need to know that.
func (p *Published) Topics(ctx context.Context) ([]event.Topic, error) {
	const query = `SELECT topic FROM outbox_sequences UNION SELECT unnest($1::text[]) ORDER BY topic`
	rows, err := p.db.Query(ctx, query, event.PublishedBy(p.producer))
	if err != nil {
		return nil, fmt.Errorf("read topics: %w", err)
	}
	topics, err := pgx.CollectRows(rows, pgx.RowTo[event.Topic])
	if err != nil {
		return nil, fmt.Errorf("read topics: %w", err)
	}
	return topics, nil
}

// StoreConsumed implements reconcile.Outbox. A consumer that was forgotten and posts a
// new watermark is remembered again. An older watermark changes nothing: Redis may be an
// older copy.
func (p *Published) StoreConsumed(ctx context.Context, topic event.Topic, consumers map[string]reconcile.ConsumedWatermark) error {
	// If another instance has changed the row meanwhile, the next call merges again.
	const query = `
		INSERT INTO outbox_consumers AS c (topic, consumer, watermark) VALUES ($1, $2, $3)
		ON CONFLICT (topic, consumer) DO UPDATE SET watermark = excluded.watermark, forgotten_at = NULL
		WHERE c.watermark = $4::jsonb`
	stored, err := p.storedConsumed(ctx, topic)
	if err != nil {
		return err
	}
	batch := &pgx.Batch{}
	for group, watermark := range consumers {
		before, known := stored[group]
		if known {
			watermark = before.Merge(watermark)
		}
		data, err := json.Marshal(watermark)
		if err != nil {
			return fmt.Errorf("encode consumed watermark: %w", err)
		}
		if known && bytes.Equal(data, before.encoded) {
			continue
		}
		batch.Queue(query, topic, group, data, before.raw)
	}
	if batch.Len() == 0 {
		return nil
	}
	if err := p.db.SendBatch(ctx, batch).Close(); err != nil {
		return fmt.Errorf("store consumed watermarks of %s: %w", topic, err)
	}
	return nil
}

// storedConsumed is a consumed watermark in the database.
type storedConsumed struct {
	reconcile.ConsumedWatermark
	group   string
	raw     []byte // as it is stored
	encoded []byte // as this release encodes it
}

func (p *Published) storedConsumed(ctx context.Context, topic event.Topic) (map[string]storedConsumed, error) {
	rows, err := p.db.Query(ctx, `SELECT consumer, watermark FROM outbox_consumers WHERE topic = $1`, topic)
	if err != nil {
		return nil, fmt.Errorf("read consumed watermarks of %s: %w", topic, err)
	}
	all, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (c storedConsumed, err error) {
		if err := row.Scan(&c.group, &c.raw); err != nil {
			return c, err
		}
		if err := json.Unmarshal(c.raw, &c.ConsumedWatermark); err != nil {
			return c, err
		}
		c.encoded, err = json.Marshal(c.ConsumedWatermark)
		return c, err
	})
	if err != nil {
		return nil, fmt.Errorf("read consumed watermarks of %s: %w", topic, err)
	}
	stored := map[string]storedConsumed{}
	for _, c := range all {
		stored[c.group] = c
	}
	return stored, nil
}

// Watermark implements reconcile.Outbox. It reads everything in one snapshot.
func (p *Published) Watermark(ctx context.Context, topic event.Topic) (w reconcile.Watermark, err error) {
	w = reconcile.Watermark{
		Topic: topic, Answers: map[string]int64{}, Answered: map[string]reconcile.Answered{},
		Consumers: map[string]reconcile.ConsumedWatermark{},
	}
	var epochs []reconcile.EpochWatermark
	batch := &pgx.Batch{}
	batch.Queue(useIndexes)
	batch.Queue(epochWatermarks, topic, p.producer, reconcile.OutboxRetention).Query(func(rows pgx.Rows) (err error) {
		epochs, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (e reconcile.EpochWatermark, err error) {
			err = row.Scan(&e.Epoch, &e.First, &e.Seq, &e.Last, &e.Known, &e.EndUnknown)
			return e, err
		})
		return err
	})
	batch.Queue(checksums, topic, reconcile.OutboxRetention).Query(func(rows pgx.Rows) error {
		return collectChecksums(rows, epochs)
	})
	batch.Queue(`SELECT consumer, answers, digest, partly FROM outbox_answers WHERE topic = $1`, topic).Query(func(rows pgx.Rows) error {
		var consumer string
		var answers int64
		var answered reconcile.Answered
		_, err := pgx.ForEachRow(rows, []any{&consumer, &answers, &answered.Digest, &answered.Partly}, func() error {
			w.Answers[consumer], w.Answered[consumer] = answers, answered
			return nil
		})
		return err
	})
	batch.Queue(`SELECT consumer, watermark FROM outbox_consumers WHERE topic = $1 AND forgotten_at IS NULL`, topic).Query(func(rows pgx.Rows) error {
		var consumer string
		var consumed reconcile.ConsumedWatermark
		_, err := pgx.ForEachRow(rows, []any{&consumer, &consumed}, func() error {
			w.Consumers[consumer] = consumed
			consumed = reconcile.ConsumedWatermark{}
			return nil
		})
		return err
	})
	err = p.db.TransactWith(ctx, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly}, func(tx pgx.Tx) error {
		return tx.SendBatch(ctx, postgres.Repeatable(batch)).Close()
	})
	if err != nil {
		return reconcile.Watermark{}, fmt.Errorf("read the watermark of %s: %w", topic, err)
	}
	if len(epochs) == 0 {
		return reconcile.Watermark{}, fmt.Errorf("read the watermark of %s: %w", topic, errUnchecked)
	}
	w.EpochWatermark, w.Closed = epochs[len(epochs)-1], epochs[:len(epochs)-1]
	return w, nil
}

// epochWatermarks returns nothing unless the numbers were checked in this incarnation.
// The unpublished rows are read through their index: there are few that have a number.
//
// An epoch without rows begins at what was lost with the database until every known
// consumer has accounted for that, and for as long as rows would be kept: a consumer that
// learns of the epoch only now must not take it for consumed. After that, it begins above
// every known number, so that a new consumer does not miss what it was never offered.
const epochWatermarks = `
	WITH unpublished AS MATERIALIZED (
		SELECT seq FROM (SELECT seq FROM outbox WHERE topic = $1 AND published_at IS NULL ORDER BY topic, id + 0 OFFSET 0) AS queue
		WHERE seq IS NOT NULL),
	epochs AS (
		SELECT epoch, first_seq, coalesce(e.last_seq, s.last_seq) AS last_seq, e.last_seq AS closed_seq, known_seq, end_unknown,
			known_seq > e.last_seq AND closed_at IS NOT NULL AND (closed_at > now() - $3::interval OR EXISTS (
				SELECT FROM outbox_consumers c
				WHERE c.topic = e.topic AND c.forgotten_at IS NULL
					AND coalesce((c.watermark #>> ARRAY['producers', $2, e.epoch, 'seq'])::bigint, 0) < known_seq)) AS lost
		FROM outbox_epochs e JOIN outbox_sequences s USING (topic)
		WHERE topic = $1 AND s.incarnation = ` + incarnation + `)
	SELECT epoch,
		coalesce((SELECT min(seq) FROM outbox WHERE topic = $1 AND seq BETWEEN first_seq AND last_seq),
			CASE WHEN lost THEN greatest(last_seq + 1, first_seq) ELSE greatest(last_seq, known_seq) + 1 END),
		coalesce((SELECT min(seq) - 1 FROM unpublished WHERE seq BETWEEN first_seq AND last_seq), last_seq),
		coalesce(closed_seq, 0), coalesce(known_seq, 0), end_unknown
	FROM epochs
	ORDER BY closed_seq IS NULL, closed_seq, first_seq`

// checksums adds up what this release and the previous one have counted.
const checksums = `
	SELECT epoch, hour, sum(count)::bigint, sum(sum)::text, max(last_seq)
	FROM (
		SELECT epoch, hour, count, sum, last_seq FROM outbox_epoch_checksums WHERE topic = $1
		UNION ALL
		SELECT epoch, hour, count, sum, c.last_seq FROM outbox_hourly_checksums c JOIN outbox_epochs e ON ` + epochOfPrevious + `
		WHERE c.topic = $1) AS c
	WHERE hour >= extract(epoch FROM now() - $2::interval) / 3600
	GROUP BY epoch, hour
	ORDER BY epoch, hour`

// epochOfPrevious joins a checksum c of the previous release with its epoch e. That release
// knows no epochs, but numbers rise across them.
const epochOfPrevious = `e.topic = c.topic AND c.last_seq BETWEEN e.first_seq AND coalesce(e.last_seq, c.last_seq)`

func collectChecksums(rows pgx.Rows, epochs []reconcile.EpochWatermark) error {
	var epoch string
	var c reconcile.HourlyChecksum
	_, err := pgx.ForEachRow(rows, []any{&epoch, &c.Hour, &c.Count, &c.Sum, &c.LastSeq}, func() error {
		for i := range epochs {
			if epochs[i].Epoch == epoch {
				epochs[i].Hours = append(epochs[i].Hours, c)
			}
		}
		return nil
	})
	return err
}
