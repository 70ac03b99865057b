package outbox

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/headgate/headgate/pkg/postgres"
)

// backlog exports how many rows of each topic are unpublished, and how old the oldest of
// them is. It asks the table, so it does not depend on whether rows can be published.
type backlog struct {
	db   *postgres.Pool
	log  *slog.Logger
	rows *prometheus.GaugeVec
	age  *prometheus.GaugeVec

	mu     sync.Mutex
	oldest map[string]oldest // by topic
}

// oldest is the oldest unpublished row of a topic, and since when it has been that.
type oldest struct {
	id    int64
	since time.Time
}

const (
	measureEvery = 2 * time.Second
	// measureShare limits the time spent on counting a long queue to a twentieth.
	measureShare = 20
)

func newBacklog(db *postgres.Pool, log *slog.Logger, reg prometheus.Registerer) *backlog {
	gauge := func(name, help string) *prometheus.GaugeVec {
		return prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: name, Help: help}, []string{"topic"})
	}
	b := &backlog{
		db: db, log: log,
		rows:   gauge("headgate_outbox_unpublished", "Outbox rows that are not published yet."),
		oldest: map[string]oldest{},
		age:    gauge("headgate_outbox_oldest_seconds", "Age of the oldest outbox row that is not published yet; 0 if there is none."),
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
			b.forget()
			b.log.DebugContext(ctx, "count of unpublished outbox rows failed; retrying", "error", err.Error())
		}
		timer.Reset(max(measureEvery, measureShare*time.Since(start)))
	}
}

func (b *backlog) measure(ctx context.Context) error {
	const query = withWaiting + `
		SELECT topic,
			(SELECT count(*) FROM outbox WHERE outbox.topic = topics.topic AND published_at IS NULL),
			coalesce(oldest.age, 0)::float8, coalesce(oldest.id, 0)
		FROM (SELECT topic FROM waiting WHERE topic IS NOT NULL UNION SELECT topic FROM outbox_sequences) topics
			LEFT JOIN LATERAL (
				SELECT id, greatest(0, extract(epoch FROM clock_timestamp() - created_at)) AS age FROM outbox
				WHERE outbox.topic = topics.topic AND published_at IS NULL ORDER BY outbox.topic, id + 0 LIMIT 1) oldest ON true`
	ctx, cancel := context.WithTimeout(ctx, stepTimeout)
	defer cancel()
	batch := &pgx.Batch{}
	batch.Queue(useIndexes)
	batch.Queue(query).Query(func(rows pgx.Rows) error {
		var topic string
		var count int64
		var age float64
		var id int64
		_, err := pgx.ForEachRow(rows, []any{&topic, &count, &age, &id}, func() error {
			b.rows.WithLabelValues(topic).Set(float64(count))
			b.age.WithLabelValues(topic).Set(age)
			b.observe(topic, id)
			return nil
		})
		return err
	})
	if err := b.db.SendBatch(ctx, batch).Close(); err != nil {
		return fmt.Errorf("count unpublished outbox rows: %w", err)
	}
	return nil
}

// observe remembers the oldest unpublished row of a topic; id is 0 if it has none.
func (b *backlog) observe(topic string, id int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case id == 0:
		delete(b.oldest, topic)
	case b.oldest[topic].id != id:
		b.oldest[topic] = oldest{id: id, since: time.Now()}
	}
}

// resume forgets the oldest row of a topic: it could not be published until a moment ago.
func (b *backlog) resume(topic string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.oldest, topic)
}

// forget forgets the oldest rows: nobody knows how long they were that while the database
// did not answer.
func (b *backlog) forget() {
	b.mu.Lock()
	defer b.mu.Unlock()
	clear(b.oldest)
}

// blocked returns for how long the same row has been the oldest of each topic, if that is
// longer than blockedAfter.
func (b *backlog) blocked() map[string]time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	blocked := map[string]time.Duration{}
	for topic, row := range b.oldest {
		if d := time.Since(row.since); d > blockedAfter {
			blocked[topic] = d
		}
	}
	return blocked
}
