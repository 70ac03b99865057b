package outbox

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

	"github.com/headgate/headgate/pkg/event"
)

// Reconciler tells the consumers what this producer has published, and publishes
// again what they say has not reached them: a broker that was emptied, failed
// over or restored costs a delay, not an event. Every instance of a producer may
// run one.
type Reconciler struct {
	cfg         ReconcilerConfig
	republished prometheus.Counter
}

// ReconcilerConfig says whose outbox is reconciled.
type ReconcilerConfig struct {
	Database *pgxpool.Pool
	Redis    redis.UniversalClient
	Producer string
	Interval time.Duration
	Log      *slog.Logger
	Metrics  prometheus.Registerer
}

const (
	longestMargin  = 10 * time.Second
	ledgerTimeout  = 10 * time.Second
	maxRepublished = 10 // times for one row; more would mean that nobody can take it
)

// NewReconciler returns a reconciler.
func NewReconciler(cfg ReconcilerConfig) *Reconciler {
	r := &Reconciler{cfg: cfg, republished: prometheus.NewCounter(prometheus.CounterOpts{
		Name: "headgate_outbox_republished_total", Help: "Outbox rows published again because a consumer had missed them.",
	})}
	cfg.Metrics.MustRegister(r.republished)
	return r
}

// Run implements service.Runner.
func (r *Reconciler) Run(ctx context.Context) error {
	tick := time.NewTicker(r.cfg.Interval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		if err := r.reconcile(ctx); err != nil && ctx.Err() == nil {
			r.cfg.Log.WarnContext(ctx, "not reconciled with the consumers", "error", err.Error())
		}
	}
}

func (r *Reconciler) reconcile(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, ledgerTimeout)
	defer cancel()
	ledgers, err := r.ledgers(ctx)
	if err != nil {
		return err
	}
	var faults []error
	for _, ledger := range ledgers {
		faults = append(faults, r.post(ctx, ledger), r.heed(ctx, ledger.Topic))
	}
	return errors.Join(faults...)
}

// margin is how long ago something must have been published to count as settled;
// it covers the difference between the clocks of Redis and Postgres, too.
func (r *Reconciler) margin() time.Duration { return min(r.cfg.Interval, longestMargin) }

func (r *Reconciler) ledgers(ctx context.Context) ([]event.Ledger, error) {
	const heads = `
		SELECT topic, coalesce((
			SELECT min(seq) - 1 FROM outbox
			WHERE outbox.topic = h.topic AND seq IS NOT NULL
				AND (published_at IS NULL OR published_at > now() - $1::interval)), seq)
		FROM outbox_heads h
		ORDER BY topic`
	rows, err := r.cfg.Database.Query(ctx, heads, r.margin())
	if err != nil {
		return nil, fmt.Errorf("read the heads of the outbox: %w", err)
	}
	ledgers, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (event.Ledger, error) {
		l := event.Ledger{Producer: r.cfg.Producer, At: time.Now().UTC()}
		err := row.Scan(&l.Topic, &l.Head)
		return l, err
	})
	if err != nil {
		return nil, fmt.Errorf("read the heads of the outbox: %w", err)
	}
	for i := range ledgers {
		if ledgers[i].Hours, err = r.tallies(ctx, ledgers[i].Topic); err != nil {
			return nil, err
		}
	}
	return ledgers, nil
}

func (r *Reconciler) tallies(ctx context.Context, topic event.Topic) ([]event.Tally, error) {
	const query = `
		SELECT hour, count, sum::text, last_seq FROM outbox_tallies
		WHERE topic = $1 AND hour >= extract(epoch FROM now() - $2::interval) / 3600
		ORDER BY hour`
	rows, err := r.cfg.Database.Query(ctx, query, topic, retention)
	if err != nil {
		return nil, fmt.Errorf("read the tallies of the outbox: %w", err)
	}
	tallies, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (event.Tally, error) {
		var t event.Tally
		err := row.Scan(&t.Hour, &t.Count, &t.Sum, &t.LastSeq)
		return t, err
	})
	if err != nil {
		return nil, fmt.Errorf("read the tallies of the outbox: %w", err)
	}
	return tallies, nil
}

func (r *Reconciler) post(ctx context.Context, ledger event.Ledger) error {
	data, err := json.Marshal(ledger)
	if err != nil {
		return fmt.Errorf("encode ledger: %w", err)
	}
	if err := r.cfg.Redis.HSet(ctx, event.LedgerKey(ledger.Topic), r.cfg.Producer, data).Err(); err != nil {
		return fmt.Errorf("post ledger of %s: %w", ledger.Topic, err)
	}
	return nil
}

// heed publishes again what the consumers of a topic miss.
func (r *Reconciler) heed(ctx context.Context, topic event.Topic) error {
	reports, err := r.cfg.Redis.HGetAll(ctx, event.MissingKey(topic, r.cfg.Producer)).Result()
	if err != nil {
		return fmt.Errorf("read what is missing of %s: %w", topic, err)
	}
	var faults []error
	for group, data := range reports {
		var missing event.Missing
		if err := json.Unmarshal([]byte(data), &missing); err != nil {
			faults = append(faults, fmt.Errorf("read what %s misses of %s: %w", group, topic, err))
			continue
		}
		n, err := r.republish(ctx, topic, missing)
		faults = append(faults, err)
		if n > 0 {
			r.republished.Add(float64(n))
			r.cfg.Log.WarnContext(ctx, "events had been lost and are published again", "topic", string(topic), "group", group, "count", n)
		}
	}
	return errors.Join(faults...)
}

// republish makes rows look unpublished that were published before the group
// caught up, for the others may still be on their way.
func (r *Reconciler) republish(ctx context.Context, topic event.Topic, missing event.Missing) (n int64, err error) {
	const (
		again    = `UPDATE outbox SET published_at = NULL, republished = republished + 1 `
		lost     = `WHERE topic = $1 AND published_at < $2 AND republished < $3 `
		byNumber = again + `FROM unnest($4::bigint[], $5::bigint[]) AS gap (low, high) ` + lost + `AND seq BETWEEN low AND high`
		byHour   = again + `FROM unnest($4::uuid[], $5::uuid[]) AS hour (low, high) ` + lost + `AND seq IS NOT NULL AND event_id >= low AND event_id < high`
	)
	if len(missing.Ranges) == 0 && len(missing.Hours) == 0 {
		return 0, nil
	}
	var first, last []int64
	for _, gap := range missing.Ranges {
		first, last = append(first, gap[0]), append(last, gap[1])
	}
	var low, high []string
	for _, hour := range missing.Hours {
		from, to := event.HourIDs(hour)
		low, high = append(low, from), append(high, to)
	}
	before := missing.CaughtUp.Add(-r.margin())
	err = pgx.BeginFunc(ctx, r.cfg.Database, func(tx pgx.Tx) error {
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
		return 0, fmt.Errorf("publish again what is missing of %s: %w", topic, err)
	}
	return n, nil
}
