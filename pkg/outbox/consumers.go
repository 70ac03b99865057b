package outbox

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/headgate/headgate/pkg/postgres"
)

// ErrUnknownConsumer says that no such consumer has posted a watermark.
var ErrUnknownConsumer = errors.New("unknown consumer")

// Forget stops keeping rows for a consumer that is gone for good. If it posts a new
// watermark nevertheless, it is remembered again. The error is ErrUnknownConsumer if
// there is no consumer with the name.
func Forget(ctx context.Context, db postgres.Querier, consumer string) error {
	tag, err := db.Exec(ctx, `UPDATE outbox_consumers SET forgotten_at = now() WHERE consumer = $1 AND forgotten_at IS NULL`, consumer)
	if err != nil {
		return fmt.Errorf("forget consumer %s: %w", consumer, err)
	}
	if tag.RowsAffected() == 0 {
		return ErrUnknownConsumer
	}
	return nil
}

// epochRows are the rows of an epoch of a topic, and how many of them every consumer has
// consumed.
type epochRows struct {
	topic       string
	first, last int64 // numbers
	// consumed is the number up to which every consumer has consumed everything; nil if
	// no consumer is known yet.
	consumed *int64
	oldest   time.Duration // age of the oldest row that some consumer lacks; 0 without one
}

// unconsumed returns how many numbers some consumer lacks.
func (h epochRows) unconsumed() int64 {
	if h.consumed == nil {
		return h.last - h.first + 1
	}
	return max(0, h.last-max(*h.consumed, h.first-1))
}

// readEpochRows returns what the outbox of a producer holds, by topic and epoch.
func readEpochRows(ctx context.Context, db postgres.Querier, producer string) ([]epochRows, error) {
	const query = `
		WITH epochs AS (
			SELECT topic, first_seq, coalesce(e.last_seq, s.last_seq) AS last_seq, (
				SELECT min(coalesce((c.watermark #>> ARRAY['producers', $1, e.epoch, 'seq'])::bigint, 0))
				FROM outbox_consumers c
				WHERE c.topic = e.topic AND c.forgotten_at IS NULL) AS consumed_seq
			FROM outbox_epochs e JOIN outbox_sequences s USING (topic))
		SELECT topic, first_seq, last_seq, consumed_seq, coalesce((
			SELECT extract(epoch FROM now() - created_at)::bigint FROM outbox o
			WHERE o.topic = epochs.topic AND o.seq > greatest(coalesce(consumed_seq, 0), first_seq - 1) AND o.seq <= last_seq
			ORDER BY o.topic, o.seq
			LIMIT 1), 0)
		FROM epochs
		WHERE first_seq <= last_seq
		ORDER BY topic, first_seq`
	rows, err := db.Query(ctx, query, producer)
	if err != nil {
		return nil, fmt.Errorf("read what consumers have consumed: %w", err)
	}
	all, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (epochRows, error) {
		var h epochRows
		var seconds int64
		err := row.Scan(&h.topic, &h.first, &h.last, &h.consumed, &seconds)
		h.oldest = max(0, time.Duration(seconds)*time.Second)
		return h, err
	})
	if err != nil {
		return nil, fmt.Errorf("read what consumers have consumed: %w", err)
	}
	return all, nil
}

// purgeConsumed deletes the oldest rows of h that every consumer has consumed and that
// were published longer ago than retention. It deletes in the order of the numbers, so
// that a new consumer finds every number from the first on.
func purgeConsumed(ctx context.Context, db postgres.Querier, h epochRows, retention time.Duration) error {
	const query = `
		WITH oldest AS MATERIALIZED (
			SELECT id, seq, published_at FROM outbox
			WHERE topic = $1 AND seq BETWEEN $2 AND $3
			ORDER BY topic, seq
			LIMIT $5)
		DELETE FROM outbox
		WHERE id IN (
			SELECT id FROM oldest
			WHERE seq < coalesce((
				SELECT min(seq) FROM oldest WHERE published_at IS NULL OR published_at >= now() - $4::interval), $3::bigint + 1))`
	if h.consumed == nil {
		return nil
	}
	return inBatches(func() (pgconn.CommandTag, error) {
		return db.Exec(ctx, query, h.topic, h.first, min(*h.consumed, h.last), retention, purgeBatch)
	})
}

// correctFuture makes rows that were published while the clock was ahead rows that were
// published now. They would be kept until that time has come.
func correctFuture(ctx context.Context, db postgres.Querier) error {
	const query = `
		UPDATE outbox SET published_at = now()
		WHERE id IN (SELECT id FROM outbox WHERE published_at > now() + interval '1 minute' LIMIT $1)`
	return inBatches(func() (pgconn.CommandTag, error) { return db.Exec(ctx, query, purgeBatch) })
}

// inBatches calls f until it changes less than a full batch.
func inBatches(f func() (pgconn.CommandTag, error)) error {
	for {
		tag, err := f()
		if err != nil || tag.RowsAffected() < purgeBatch {
			return err
		}
	}
}

// retained exports what the outbox keeps because a consumer lacks it.
type retained struct {
	db    *postgres.Pool
	rows  *prometheus.GaugeVec
	age   *prometheus.GaugeVec
	bytes prometheus.Gauge
}

func newRetained(db *postgres.Pool, reg prometheus.Registerer) *retained {
	r := &retained{
		db: db,
		rows: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "headgate_outbox_unconsumed", Help: "Outbox rows that a consumer has not consumed yet. They are kept however old they are.",
		}, []string{"topic"}),
		age: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "headgate_outbox_oldest_unconsumed_seconds", Help: "Age of the oldest outbox row that a consumer has not consumed yet; 0 if there is none.",
		}, []string{"topic"}),
		bytes: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "headgate_outbox_bytes", Help: "Size of the outbox on disk, with its indexes.",
		}),
	}
	reg.MustRegister(r.rows, r.age, r.bytes)
	return r
}

func (r *retained) measure(ctx context.Context, topics []epochRows) {
	rows, age := map[string]int64{}, map[string]time.Duration{}
	for _, h := range topics {
		rows[h.topic] += h.unconsumed()
		age[h.topic] = max(age[h.topic], h.oldest)
	}
	for topic := range rows {
		r.rows.WithLabelValues(topic).Set(float64(rows[topic]))
		r.age.WithLabelValues(topic).Set(age[topic].Seconds())
	}
	var bytes int64
	if err := r.db.QueryRow(ctx, `SELECT pg_total_relation_size('outbox')`).Scan(&bytes); err == nil {
		r.bytes.Set(float64(bytes))
	}
}
