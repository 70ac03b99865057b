package receipt

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"

	"github.com/headgate/headgate/pkg/bus"
	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/pkg/postgres"
)

// Reconciler asks the producers for the events that this group has no receipt
// of. Every instance of a service may run one.
type Reconciler struct {
	cfg     ReconcilerConfig
	missing *prometheus.GaugeVec
}

// ReconcilerConfig says whose receipts are compared.
type ReconcilerConfig struct {
	Database *pgxpool.Pool
	Redis    redis.UniversalClient
	Topic    event.Topic
	Group    string
	Interval time.Duration
	Keep     time.Duration // how long receipts are kept; for good if zero
	Log      *slog.Logger
	Metrics  prometheus.Registerer
}

const (
	roundTimeout = 20 * time.Second
	rangesLimit  = 1000
	// hourPatience is how long after its end an hour is compared.
	hourPatience = 5 * time.Minute
	purgeEvery   = time.Hour
)

// Retention is how long receipts are worth keeping: longer than outboxes keep
// the events.
const Retention = 8 * 24 * time.Hour

// NewReconciler returns a reconciler.
func NewReconciler(cfg ReconcilerConfig) *Reconciler {
	r := &Reconciler{cfg: cfg, missing: prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "headgate_events_missing", Help: "Events that were published and have no receipt although the group has caught up.",
	}, []string{"topic", "producer"})}
	cfg.Metrics.MustRegister(r.missing)
	return r
}

// Run implements service.Runner.
func (r *Reconciler) Run(ctx context.Context) error {
	tick := time.NewTicker(r.cfg.Interval)
	defer tick.Stop()
	purge := time.NewTicker(purgeEvery)
	defer purge.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-purge.C:
			r.purge(ctx)
		case <-tick.C:
		}
		if err := r.reconcile(ctx); err != nil && ctx.Err() == nil {
			r.cfg.Log.WarnContext(ctx, "not reconciled with the producers", "error", err.Error())
		}
	}
}

func (r *Reconciler) reconcile(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, roundTimeout)
	defer cancel()
	// The question comes before the look at the receipts: what arrives in between
	// is then no loss.
	caughtUp, err := bus.CaughtUp(ctx, r.cfg.Redis, string(r.cfg.Topic), r.cfg.Group)
	if err != nil {
		return err
	}
	posted, err := r.cfg.Redis.HGetAll(ctx, event.LedgerKey(r.cfg.Topic)).Result()
	if err != nil {
		return fmt.Errorf("read the ledgers of %s: %w", r.cfg.Topic, err)
	}
	var faults []error
	for producer, data := range posted {
		var ledger event.Ledger
		if err := json.Unmarshal([]byte(data), &ledger); err != nil {
			faults = append(faults, fmt.Errorf("read the ledger of %s: %w", producer, err))
			continue
		}
		ledger.Producer, ledger.Topic = producer, r.cfg.Topic
		faults = append(faults, r.compare(ctx, ledger, caughtUp))
	}
	return errors.Join(faults...)
}

// compare stores the ledger, finds what is missing and says so to the producer.
func (r *Reconciler) compare(ctx context.Context, ledger event.Ledger, caughtUp time.Time) error {
	if err := r.store(ctx, ledger); err != nil {
		return err
	}
	gaps, err := r.advance(ctx, ledger)
	if err != nil {
		return err
	}
	hours, err := r.disagreeing(ctx, ledger)
	if err != nil {
		return err
	}
	report := event.Missing{Group: r.cfg.Group, CaughtUp: caughtUp, Ranges: gaps, Hours: hours}
	n := int64(0)
	if caughtUp.After(ledger.At) { // else they may still be on their way
		for _, gap := range gaps {
			n += gap[1] - gap[0] + 1
		}
	}
	r.missing.WithLabelValues(string(r.cfg.Topic), ledger.Producer).Set(float64(n))
	return r.report(ctx, ledger.Producer, report)
}

func (r *Reconciler) report(ctx context.Context, producer string, report event.Missing) error {
	key := event.MissingKey(r.cfg.Topic, producer)
	if len(report.Ranges) == 0 && len(report.Hours) == 0 || report.CaughtUp.IsZero() {
		if err := r.cfg.Redis.HDel(ctx, key, r.cfg.Group).Err(); err != nil {
			return fmt.Errorf("withdraw the report to %s: %w", producer, err)
		}
		return nil
	}
	data, err := json.Marshal(report)
	if err != nil {
		return fmt.Errorf("encode report: %w", err)
	}
	if err := r.cfg.Redis.HSet(ctx, key, r.cfg.Group, data).Err(); err != nil {
		return fmt.Errorf("report to %s: %w", producer, err)
	}
	return nil
}

// store keeps what the producer says; an older word does not undo a newer one.
func (r *Reconciler) store(ctx context.Context, ledger event.Ledger) error {
	const head = `
		INSERT INTO ledgers AS l (topic, producer, head, reported_at) VALUES ($1, $2, $3, $4)
		ON CONFLICT (topic, producer) DO UPDATE
		SET head = greatest(l.head, excluded.head), reported_at = greatest(l.reported_at, excluded.reported_at)`
	const hours = `
		INSERT INTO ledger_hours AS h (topic, producer, hour, count, sum, last_seq)
		SELECT $1, $2, hour, count, sum, last_seq
		FROM unnest($3::bigint[], $4::bigint[], $5::numeric[], $6::bigint[]) AS t (hour, count, sum, last_seq)
		ON CONFLICT (topic, producer, hour) DO UPDATE
		SET count = excluded.count, sum = excluded.sum, last_seq = excluded.last_seq, agrees = false
		WHERE (h.count, h.sum) <> (excluded.count, excluded.sum) AND excluded.last_seq >= h.last_seq`
	var hour, count, last []int64
	var sum []string
	for _, t := range ledger.Hours {
		hour, count, sum, last = append(hour, t.Hour), append(count, t.Count), append(sum, t.Sum), append(last, t.LastSeq)
	}
	batch := &pgx.Batch{}
	batch.Queue(head, ledger.Topic, ledger.Producer, ledger.Head, ledger.At)
	batch.Queue(hours, ledger.Topic, ledger.Producer, hour, count, sum, last)
	if err := r.cfg.Database.SendBatch(ctx, batch).Close(); err != nil {
		return fmt.Errorf("store the ledger of %s: %w", ledger.Producer, err)
	}
	return nil
}

// advance moves the number up to which receipts are complete, and returns the
// gaps above it. What lies below is never looked at again, so the cost is that
// of what is new.
func (r *Reconciler) advance(ctx context.Context, ledger event.Ledger) ([][2]int64, error) {
	var settled int64
	const read = `SELECT settled_to FROM ledgers WHERE topic = $1 AND producer = $2`
	if err := r.cfg.Database.QueryRow(ctx, read, ledger.Topic, ledger.Producer).Scan(&settled); err != nil {
		return nil, fmt.Errorf("read how far receipts go: %w", err)
	}
	gaps, err := findGaps(ctx, r.cfg.Database, ledger.Topic, ledger.Producer, settled, ledger.Head, rangesLimit)
	if err != nil {
		return nil, err
	}
	complete := max(settled, ledger.Head)
	if len(gaps) > 0 {
		complete = gaps[0][0] - 1
	}
	const write = `UPDATE ledgers SET settled_to = $3 WHERE topic = $1 AND producer = $2 AND settled_to < $3`
	if _, err := r.cfg.Database.Exec(ctx, write, ledger.Topic, ledger.Producer, complete); err != nil {
		return nil, fmt.Errorf("note how far receipts go: %w", err)
	}
	return gaps, nil
}

// findGaps returns the numbers after from and up to head of which there is no
// receipt, as ranges, at most limit of them.
func findGaps(ctx context.Context, db postgres.Querier, topic event.Topic, producer string, from, head int64, limit int) ([][2]int64, error) {
	const query = `
		SELECT previous + 1, seq - 1
		FROM (
			SELECT seq, lag(seq, 1, $3::bigint) OVER (ORDER BY seq) AS previous
			FROM (
				SELECT seq FROM receipts WHERE topic = $1 AND producer = $2 AND seq > $3 AND seq <= $4
				UNION SELECT $4 + 1
			) AS numbers
		) AS pairs
		WHERE seq > previous + 1
		ORDER BY 1
		LIMIT $5`
	if head <= from {
		return nil, nil
	}
	rows, err := db.Query(ctx, query, topic, producer, from, head, limit)
	if err != nil {
		return nil, fmt.Errorf("find gaps in the receipts: %w", err)
	}
	gaps, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (gap [2]int64, err error) {
		err = row.Scan(&gap[0], &gap[1])
		return gap, err
	})
	if err != nil {
		return nil, fmt.Errorf("find gaps in the receipts: %w", err)
	}
	return gaps, nil
}

// disagreeing compares the hours that are over and have not agreed yet, and
// returns those that differ.
func (r *Reconciler) disagreeing(ctx context.Context, ledger event.Ledger) ([]int64, error) {
	const query = `
		SELECT hour, count, sum::text, last_seq FROM ledger_hours
		WHERE topic = $1 AND producer = $2 AND NOT agrees AND last_seq <= $3 AND hour < $4
			AND hour >= extract(epoch FROM now() - interval '7 days') / 3600
		ORDER BY hour`
	over := time.Now().Add(-hourPatience).Unix() / 3600
	rows, err := r.cfg.Database.Query(ctx, query, ledger.Topic, ledger.Producer, ledger.Head, over)
	if err != nil {
		return nil, fmt.Errorf("read the hours of the ledger: %w", err)
	}
	hours, err := pgx.CollectRows(rows, scanTally)
	if err != nil {
		return nil, fmt.Errorf("read the hours of the ledger: %w", err)
	}
	var differ []int64
	for _, hour := range hours {
		same, err := r.agree(ctx, ledger, hour)
		if err != nil {
			return nil, err
		}
		if !same {
			differ = append(differ, hour.Hour)
		}
	}
	return differ, nil
}

func (r *Reconciler) agree(ctx context.Context, ledger event.Ledger, hour event.Tally) (bool, error) {
	held, err := countHour(ctx, r.cfg.Database, ledger.Topic, ledger.Producer, hour.Hour)
	if err != nil {
		return false, err
	}
	if held.Count != hour.Count || held.Sum != hour.Sum {
		return false, nil
	}
	const write = `UPDATE ledger_hours SET agrees = true WHERE topic = $1 AND producer = $2 AND hour = $3 AND (count, sum) = ($4, $5::numeric)`
	if _, err := r.cfg.Database.Exec(ctx, write, ledger.Topic, ledger.Producer, hour.Hour, hour.Count, hour.Sum); err != nil {
		return false, fmt.Errorf("note that the hour agrees: %w", err)
	}
	return true, nil
}

func scanTally(row pgx.CollectableRow) (event.Tally, error) {
	var t event.Tally
	err := row.Scan(&t.Hour, &t.Count, &t.Sum, &t.LastSeq)
	return t, err
}

// countHour tallies the receipts of the events whose ids were made in an hour.
func countHour(ctx context.Context, db postgres.Querier, topic event.Topic, producer string, hour int64) (event.Tally, error) {
	query := `
		SELECT count(*), coalesce(sum(` + postgres.HashOfUUID("event_id") + `), 0)::text, coalesce(max(seq), 0)
		FROM receipts
		WHERE topic = $1 AND producer = $2 AND event_id >= $3 AND event_id < $4`
	low, high := event.HourIDs(hour)
	t := event.Tally{Hour: hour}
	if err := db.QueryRow(ctx, query, topic, producer, low, high).Scan(&t.Count, &t.Sum, &t.LastSeq); err != nil {
		return event.Tally{}, fmt.Errorf("count the receipts of an hour: %w", err)
	}
	return t, nil
}

// purge deletes receipts of events that no outbox holds any more.
func (r *Reconciler) purge(ctx context.Context) {
	if r.cfg.Keep == 0 {
		return
	}
	before := time.Now().Add(-r.cfg.Keep)
	batch := &pgx.Batch{}
	batch.Queue(`DELETE FROM receipts WHERE settled_at < $1`, before)
	batch.Queue(`DELETE FROM ledger_hours WHERE topic = $1 AND hour < $2`, r.cfg.Topic, before.Unix()/3600)
	if err := r.cfg.Database.SendBatch(ctx, batch).Close(); err != nil {
		r.cfg.Log.WarnContext(ctx, "old receipts not deleted", "error", err.Error())
	}
}
