package outbox

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/headgate/headgate/pkg/reconcile"
)

// Relay publishes the rows of the outbox. Several relays may work on one database
// at once.
type Relay struct {
	db          *pgxpool.Pool
	publisher   message.Publisher
	log         *slog.Logger
	published   prometheus.Counter
	unpublished prometheus.Gauge
}

const (
	batchSize    = 500
	pollInterval = time.Second // in case a NOTIFY was lost
	behindPause  = 5 * time.Millisecond
	// After it has published rows, a relay looks for more without a NOTIFY.
	linger       = 3 * notifyEvery
	lingerPause  = notifyEvery
	stepTimeout  = 10 * time.Second
	longestPause = 5 * time.Second
	purgeEvery   = 10 * time.Minute
	purgeBatch   = 10_000
)

// NewRelay returns a relay that publishes through publisher, which must
// return only after the broker has answered for every message.
func NewRelay(db *pgxpool.Pool, publisher message.Publisher, log *slog.Logger, reg prometheus.Registerer) *Relay {
	r := &Relay{
		db:        db,
		publisher: publisher,
		log:       log,
		published: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "headgate_outbox_published_total", Help: "Outbox rows published to a stream.",
		}),
		unpublished: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "headgate_outbox_unpublished", Help: "Outbox rows not yet published, sampled every 10 minutes and after each failure.",
		}),
	}
	reg.MustRegister(r.published, r.unpublished)
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

	purge := time.NewTicker(purgeEvery)
	defer purge.Stop()
	poll := time.NewTimer(pollInterval)
	defer poll.Stop()
	var found time.Time
	var pause time.Duration
	for {
		done, err := r.step(ctx)
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			pause = min(max(2*pause, 100*time.Millisecond), longestPause)
			r.log.WarnContext(ctx, "publish failed; retrying", "error", err.Error(), "next_in_ms", pause.Milliseconds())
			r.count(ctx)
			r.sleep(ctx, pause)
			continue
		case done.claimed == batchSize && done.published > 0:
			pause = 0
			continue
		case done.behind > 0:
			// Another relay has locked earlier rows of the same subjects.
			r.sleep(ctx, behindPause)
			continue
		}
		pause = 0
		if done.published > 0 {
			found = time.Now()
		}
		if time.Since(found) < linger {
			poll.Reset(lingerPause)
		} else {
			poll.Reset(pollInterval)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-wake:
		case <-poll.C:
		case <-purge.C:
			r.purge(ctx)
		}
	}
}

func (r *Relay) sleep(ctx context.Context, pause time.Duration) {
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}

// claim locks the numbered rows that no other relay has locked in the meantime. A row
// is behind if another relay has locked an earlier row of the same subject: published
// now, it could overtake that row. If the count shows that the claimed rows are all
// unpublished rows up to the last of them, none is behind.
const claim = `
	WITH claimed AS (
		SELECT id, event_id, topic, name, subject, seq, payload
		FROM outbox
		WHERE id = ANY($1) AND published_at IS NULL
		FOR UPDATE SKIP LOCKED)
	SELECT id, event_id::text, topic, name, seq, payload,
		subject <> '' AND (SELECT count(*) FROM claimed)
			< (SELECT count(*) FROM outbox WHERE published_at IS NULL AND id + 0 <= (SELECT max(id) FROM claimed))
		AND EXISTS (
			SELECT FROM outbox earlier
			WHERE earlier.published_at IS NULL AND earlier.subject <> ''
				AND earlier.topic = claimed.topic AND earlier.subject = claimed.subject
				AND earlier.id < claimed.id AND earlier.id NOT IN (SELECT id FROM claimed)) AS behind
	FROM claimed`

type row struct {
	id      int64
	eventID string
	topic   string
	name    string
	seq     int64
	payload []byte
	behind  bool
}

// progress counts the rows of a step.
type progress struct{ claimed, published, behind int }

// step publishes one batch. The rows stay locked while the broker is called and
// are marked only after it has answered.
func (r *Relay) step(ctx context.Context) (done progress, err error) {
	ctx, cancel := context.WithTimeout(ctx, stepTimeout)
	defer cancel()
	ids, err := r.numberOldest(ctx)
	if err != nil || len(ids) == 0 {
		return progress{}, err
	}
	err = pgx.BeginFunc(ctx, r.db, func(tx pgx.Tx) error {
		batch, err := claimRows(ctx, tx, ids)
		if err != nil || len(batch) == 0 {
			return err
		}
		done.claimed = len(batch)
		ready := make(map[string][]row)
		for _, b := range batch {
			if b.behind {
				done.behind++
				continue
			}
			ready[b.topic] = append(ready[b.topic], b)
		}
		sent, publishErr := r.publish(ctx, ready)
		done.published = len(sent)
		if len(sent) == 0 {
			return publishErr
		}
		if publishErr != nil {
			r.log.WarnContext(ctx, "publish failed for some topics; retrying", "error", publishErr.Error())
			done = progress{} // Wait for the poll instead of retrying at once.
		}
		return mark(ctx, tx, sent)
	})
	if err != nil {
		return progress{}, err
	}
	r.published.Add(float64(done.published))
	return done, nil
}

// asyncCommit lets the transaction that marks rows as published commit without
// waiting for the disk. If a crash of Postgres loses the marks, the rows are
// published again under the same ids and sequence numbers, and consumers ignore
// what they have already handled.
const asyncCommit = `SELECT set_config('synchronous_commit', 'off', true)`

func claimRows(ctx context.Context, tx pgx.Tx, ids []int64) (claimed []row, err error) {
	batch := &pgx.Batch{}
	batch.Queue(useIndexes)
	batch.Queue(asyncCommit)
	batch.Queue(claim, ids).Query(func(rows pgx.Rows) error {
		claimed, err = pgx.CollectRows(rows, func(found pgx.CollectableRow) (row, error) {
			var b row
			err := found.Scan(&b.id, &b.eventID, &b.topic, &b.name, &b.seq, &b.payload, &b.behind)
			return b, err
		})
		return err
	})
	if err := tx.SendBatch(ctx, batch).Close(); err != nil {
		return nil, fmt.Errorf("claim outbox rows: %w", err)
	}
	slices.SortFunc(claimed, func(a, b row) int { return cmp.Compare(a.id, b.id) })
	return claimed, nil
}

// mark marks rows as published, in a transaction under asyncCommit.
func mark(ctx context.Context, tx pgx.Tx, ids []int64) error {
	const query = `UPDATE outbox SET published_at = clock_timestamp() WHERE id = ANY($1)`
	if _, err := tx.Exec(ctx, query, ids); err != nil {
		return fmt.Errorf("mark outbox rows: %w", err)
	}
	return nil
}

// publish returns the ids of the rows that the broker has accepted. A topic that
// fails does not delay the others.
func (r *Relay) publish(ctx context.Context, topics map[string][]row) (done []int64, err error) {
	var faults []error
	for topic, rows := range topics {
		messages := make([]*message.Message, len(rows))
		for i, b := range rows {
			messages[i] = message.NewMessageWithContext(ctx, b.eventID, numbered(b))
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

// numbered returns the payload, a JSON object that is never empty, with the
// event's sequence number as its first member.
func numbered(b row) []byte {
	const member = `{"producerSeq":`
	out := make([]byte, 0, len(member)+20+len(b.payload))
	out = strconv.AppendInt(append(out, member...), b.seq, 10)
	return append(append(out, ','), b.payload[1:]...)
}

// purge deletes rows that were published longer ago than consumers may request
// them, and their hourly checksums.
func (r *Relay) purge(ctx context.Context) {
	const query = `
		DELETE FROM outbox
		WHERE id IN (
			SELECT id FROM outbox
			WHERE published_at < now() - $1::interval
			ORDER BY published_at
			LIMIT $2)`
	for {
		tag, err := r.db.Exec(ctx, query, reconcile.OutboxRetention, purgeBatch)
		if err != nil {
			r.log.WarnContext(ctx, "outbox purge failed; retrying", "error", err.Error(), "next_in_ms", purgeEvery.Milliseconds())
			break
		}
		if tag.RowsAffected() < purgeBatch {
			break
		}
	}
	const checksums = `DELETE FROM outbox_hourly_checksums WHERE hour < extract(epoch FROM now() - $1::interval) / 3600 - 24`
	if _, err := r.db.Exec(ctx, checksums, reconcile.OutboxRetention); err != nil {
		r.log.WarnContext(ctx, "hourly checksum purge failed; retrying", "error", err.Error(), "next_in_ms", purgeEvery.Milliseconds())
	}
	r.count(ctx)
}

func (r *Relay) count(ctx context.Context) {
	var n int64
	if err := r.db.QueryRow(ctx, `SELECT count(*) FROM outbox WHERE published_at IS NULL`).Scan(&n); err == nil {
		r.unpublished.Set(float64(n))
	}
}
