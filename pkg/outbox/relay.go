package outbox

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
)

// Relay publishes what the outbox holds. Several relays may work on one
// database at once.
type Relay struct {
	db        *pgxpool.Pool
	publisher message.Publisher
	log       *slog.Logger
	published prometheus.Counter
	unsent    prometheus.Gauge
}

const (
	batchSize    = 200
	pollInterval = time.Second // a safety net: NOTIFY is the way it learns of rows
	stepTimeout  = 10 * time.Second
	longestPause = 5 * time.Second
	retention    = "7 days"
	sweepEvery   = 10 * time.Minute
)

// NewRelay returns a relay that publishes through publisher, which must
// return only after the broker has answered for every message.
func NewRelay(db *pgxpool.Pool, publisher message.Publisher, log *slog.Logger, reg prometheus.Registerer) *Relay {
	r := &Relay{
		db:        db,
		publisher: publisher,
		log:       log,
		published: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "headgate_outbox_published_total", Help: "Outbox rows that the broker has taken.",
		}),
		unsent: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "headgate_outbox_unpublished", Help: "Outbox rows that wait to be published, sampled every 10 minutes and at every failure.",
		}),
	}
	reg.MustRegister(r.published, r.unsent)
	return r
}

// Run implements service.Runner: it publishes until ctx ends.
func (r *Relay) Run(ctx context.Context) error {
	wake := make(chan struct{}, 1)
	listening := make(chan struct{})
	go func() {
		defer close(listening)
		r.listen(ctx, wake)
	}()
	defer func() { <-listening }()

	sweep := time.NewTicker(sweepEvery)
	defer sweep.Stop()
	poll := time.NewTicker(pollInterval)
	defer poll.Stop()
	var pause time.Duration
	for {
		n, err := r.step(ctx)
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			pause = min(max(2*pause, 100*time.Millisecond), longestPause)
			r.log.WarnContext(ctx, "events wait in the outbox", "error", err.Error(), "retry_in_ms", pause.Milliseconds())
			r.count(ctx)
			select {
			case <-ctx.Done():
				return nil
			case <-time.After(pause):
			}
			continue
		case n == batchSize:
			pause = 0
			continue
		}
		pause = 0
		select {
		case <-ctx.Done():
			return nil
		case <-wake:
		case <-poll.C:
		case <-sweep.C:
			r.sweep(ctx)
		}
	}
}

// claim takes rows by their state, not by a cursor over ids: ids are given out
// in another order than transactions commit, and a cursor would skip the late.
const claim = `
	SELECT id, event_id::text, topic, name, payload
	FROM outbox
	WHERE published_at IS NULL
	ORDER BY id
	LIMIT $1
	FOR UPDATE SKIP LOCKED`

type row struct {
	id      int64
	eventID string
	topic   string
	name    string
	payload []byte
}

// step publishes one batch and returns its size. The rows stay locked while
// the broker is asked and are marked only after it has answered.
func (r *Relay) step(ctx context.Context) (n int, err error) {
	ctx, cancel := context.WithTimeout(ctx, stepTimeout)
	defer cancel()
	err = pgx.BeginFunc(ctx, r.db, func(tx pgx.Tx) error {
		rows, err := tx.Query(ctx, claim, batchSize)
		if err != nil {
			return fmt.Errorf("claim outbox rows: %w", err)
		}
		batch, err := pgx.CollectRows(rows, func(found pgx.CollectableRow) (row, error) {
			var b row
			err := found.Scan(&b.id, &b.eventID, &b.topic, &b.name, &b.payload)
			return b, err
		})
		if err != nil {
			return fmt.Errorf("claim outbox rows: %w", err)
		}
		if len(batch) == 0 {
			return nil
		}
		done, publishErr := r.publish(ctx, batch)
		if len(done) == 0 {
			return publishErr
		}
		if _, err := tx.Exec(ctx, `UPDATE outbox SET published_at = now() WHERE id = ANY($1)`, done); err != nil {
			return fmt.Errorf("mark outbox rows: %w", err)
		}
		n = len(done)
		if publishErr != nil {
			r.log.WarnContext(ctx, "some events wait in the outbox", "error", publishErr.Error())
			n = 0 // Wait for the poll instead of trying again at once.
		}
		return nil
	})
	if err != nil {
		return 0, err
	}
	r.published.Add(float64(n))
	return n, nil
}

// publish returns the ids of the rows that the broker has taken. One topic that
// fails does not hold up the others.
func (r *Relay) publish(ctx context.Context, batch []row) (done []int64, err error) {
	byTopic := map[string][]row{}
	for _, b := range batch {
		byTopic[b.topic] = append(byTopic[b.topic], b)
	}
	var faults []error
	for topic, rows := range byTopic {
		messages := make([]*message.Message, len(rows))
		for i, b := range rows {
			messages[i] = message.NewMessageWithContext(ctx, b.eventID, b.payload)
			messages[i].Metadata.Set("name", b.name)
		}
		if err := r.publisher.Publish(topic, messages...); err != nil {
			faults = append(faults, fmt.Errorf("publish to %s: %w", topic, err))
			continue
		}
		for _, b := range rows {
			done = append(done, b.id)
		}
	}
	return done, errors.Join(faults...)
}

// listen turns NOTIFYs into wake-ups on a connection of its own until ctx ends.
func (r *Relay) listen(ctx context.Context, wake chan<- struct{}) {
	for ctx.Err() == nil {
		err := r.listenOnce(ctx, wake)
		if ctx.Err() != nil {
			return
		}
		r.log.DebugContext(ctx, "listening to the outbox again", "error", err.Error())
		select {
		case <-ctx.Done():
		case <-time.After(pollInterval):
		}
	}
}

func (r *Relay) listenOnce(ctx context.Context, wake chan<- struct{}) error {
	conn, err := pgx.ConnectConfig(ctx, r.db.Config().ConnConfig)
	if err != nil {
		return fmt.Errorf("connect to listen: %w", err)
	}
	defer conn.Close(context.WithoutCancel(ctx))
	if _, err := conn.Exec(ctx, "LISTEN "+channel); err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	for {
		if _, err := conn.WaitForNotification(ctx); err != nil {
			return fmt.Errorf("wait for a notification: %w", err)
		}
		select {
		case wake <- struct{}{}:
		default:
		}
	}
}

// sweep deletes rows that were published so long ago that no consumer can need
// them again.
func (r *Relay) sweep(ctx context.Context) {
	const query = `
		DELETE FROM outbox
		WHERE id IN (
			SELECT id FROM outbox
			WHERE published_at < now() - $1::interval
			ORDER BY published_at
			LIMIT 10000)`
	if _, err := r.db.Exec(ctx, query, retention); err != nil {
		r.log.WarnContext(ctx, "old outbox rows not deleted", "error", err.Error())
	}
	r.count(ctx)
}

func (r *Relay) count(ctx context.Context) {
	var n int64
	if err := r.db.QueryRow(ctx, `SELECT count(*) FROM outbox WHERE published_at IS NULL`).Scan(&n); err == nil {
		r.unsent.Set(float64(n))
	}
}
