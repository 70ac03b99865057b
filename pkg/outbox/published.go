package outbox

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/pkg/reconcile"
)

// Published is the part of an outbox that a relay has numbered. It implements
// reconcile.Outbox and is safe for concurrent use.
type Published struct{ db *pgxpool.Pool }

// maxRepublished is how often one row is republished; a row that needs more has no
// consumer that can record it.
const maxRepublished = 10

// NewPublished returns the published rows of the outbox in db.
func NewPublished(db *pgxpool.Pool) *Published { return &Published{db: db} }

// Watermarks implements reconcile.Outbox.
func (p *Published) Watermarks(ctx context.Context, margin time.Duration) ([]reconcile.Watermark, error) {
	const query = `
		SELECT topic, coalesce((
			SELECT min(seq) - 1 FROM outbox
			WHERE outbox.topic = s.topic AND seq IS NOT NULL
				AND (published_at IS NULL OR published_at > now() - $1::interval)), last_seq)
		FROM outbox_sequences s
		ORDER BY topic`
	rows, err := p.db.Query(ctx, query, margin)
	if err != nil {
		return nil, fmt.Errorf("read outbox sequences: %w", err)
	}
	watermarks, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (reconcile.Watermark, error) {
		var w reconcile.Watermark
		err := row.Scan(&w.Topic, &w.Seq)
		return w, err
	})
	if err != nil {
		return nil, fmt.Errorf("read outbox sequences: %w", err)
	}
	for i := range watermarks {
		if watermarks[i].Hours, err = p.checksums(ctx, watermarks[i].Topic); err != nil {
			return nil, err
		}
	}
	return watermarks, nil
}

func (p *Published) checksums(ctx context.Context, topic event.Topic) ([]reconcile.HourlyChecksum, error) {
	const query = `
		SELECT hour, count, sum::text, last_seq FROM outbox_hourly_checksums
		WHERE topic = $1 AND hour >= extract(epoch FROM now() - $2::interval) / 3600
		ORDER BY hour`
	rows, err := p.db.Query(ctx, query, topic, reconcile.OutboxRetention)
	if err != nil {
		return nil, fmt.Errorf("read hourly checksums of the outbox: %w", err)
	}
	checksums, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (reconcile.HourlyChecksum, error) {
		var c reconcile.HourlyChecksum
		err := row.Scan(&c.Hour, &c.Count, &c.Sum, &c.LastSeq)
		return c, err
	})
	if err != nil {
		return nil, fmt.Errorf("read hourly checksums of the outbox: %w", err)
	}
	return checksums, nil
}

// Republish implements reconcile.Outbox. It marks the rows as unpublished and
// wakes the relays.
func (p *Published) Republish(ctx context.Context, topic event.Topic, request reconcile.RepublishRequest, before time.Time) (n int64, err error) {
	const (
		unmark   = `UPDATE outbox SET published_at = NULL, republished = republished + 1 `
		lost     = `WHERE topic = $1 AND published_at < $2 AND republished < $3 `
		byNumber = unmark + `FROM unnest($4::bigint[], $5::bigint[]) AS gap (low, high) ` + lost + `AND seq BETWEEN low AND high`
		byHour   = unmark + `FROM unnest($4::uuid[], $5::uuid[]) AS hour (low, high) ` + lost + `AND seq IS NOT NULL AND event_id >= low AND event_id < high`
	)
	var first, last []int64
	for _, r := range request.Ranges {
		first, last = append(first, r.First), append(last, r.Last)
	}
	var low, high []string
	for _, hour := range request.Hours {
		from, to := reconcile.HourIDs(hour)
		low, high = append(low, from), append(high, to)
	}
	err = pgx.BeginFunc(ctx, p.db, func(tx pgx.Tx) error {
		numbers, err := tx.Exec(ctx, byNumber, topic, before, maxRepublished, first, last)
		if err != nil {
			return err
		}
		hours, err := tx.Exec(ctx, byHour, topic, before, maxRepublished, low, high)
		if err != nil {
			return err
		}
		n = numbers.RowsAffected() + hours.RowsAffected()
		_, err = tx.Exec(ctx, `SELECT pg_notify($1, '')`, channel)
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("republish lost events of %s: %w", topic, err)
	}
	return n, nil
}
