package outbox

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
)

// backlog exports how many rows of each topic are unpublished, and how old the oldest of
// them is. It asks the table, so it does not depend on whether rows can be published.
type backlog struct {
	db   *pgxpool.Pool
	log  *slog.Logger
	rows *prometheus.GaugeVec
	age  *prometheus.GaugeVec
}

const (
	measureEvery = 2 * time.Second
	// measureShare limits the time spent on counting a long queue to a twentieth.
	measureShare = 20
)

func newBacklog(db *pgxpool.Pool, log *slog.Logger, reg prometheus.Registerer) *backlog {
	gauge := func(name, help string) *prometheus.GaugeVec {
		return prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: name, Help: help}, []string{"topic"})
	}
	b := &backlog{
		db: db, log: log,
		rows: gauge("headgate_outbox_unpublished", "Outbox rows that are not published yet."),
		age:  gauge("headgate_outbox_oldest_seconds", "Age of the oldest outbox row that is not published yet; 0 if there is none."),
	}
	reg.MustRegister(b.rows, b.age)
	return b
}

// run measures until ctx ends.
func (b *backlog) run(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		start := time.Now()
		if err := b.measure(ctx); err != nil {
			b.log.DebugContext(ctx, "count of unpublished outbox rows failed; retrying", "error", err.Error())
		}
		timer.Reset(max(measureEvery, measureShare*time.Since(start)))
	}
}

func (b *backlog) measure(ctx context.Context) error {
	const query = withWaiting + `
		SELECT topic,
			(SELECT count(*) FROM outbox WHERE outbox.topic = topics.topic AND published_at IS NULL),
			coalesce((SELECT greatest(0, extract(epoch FROM clock_timestamp() - created_at)) FROM outbox
				WHERE outbox.topic = topics.topic AND published_at IS NULL ORDER BY outbox.topic, id + 0 LIMIT 1), 0)::float8
		FROM (SELECT topic FROM waiting WHERE topic IS NOT NULL UNION SELECT topic FROM outbox_sequences) topics`
	ctx, cancel := context.WithTimeout(ctx, stepTimeout)
	defer cancel()
	batch := &pgx.Batch{}
	batch.Queue(useIndexes)
	batch.Queue(query).Query(func(rows pgx.Rows) error {
		var topic string
		var count int64
		var age float64
		_, err := pgx.ForEachRow(rows, []any{&topic, &count, &age}, func() error {
			b.rows.WithLabelValues(topic).Set(float64(count))
			b.age.WithLabelValues(topic).Set(age)
			return nil
		})
		return err
	})
	if err := b.db.SendBatch(ctx, batch).Close(); err != nil {
		return fmt.Errorf("count unpublished outbox rows: %w", err)
	}
	return nil
}
