package reconcile

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

// Consumer compares the published watermarks of a topic with the consumed-event
// records of a group, and requests from each producer what is missing. Every
// instance of a service may run one.
type Consumer struct {
	cfg     ConsumerConfig
	missing *prometheus.GaugeVec
}

// ConsumerConfig says whose records are compared.
type ConsumerConfig struct {
	Database  *pgxpool.Pool // with WatermarksSchema and consumed-event records
	Redis     redis.UniversalClient
	Topic     event.Topic
	Group     string
	Interval  time.Duration
	Retention time.Duration // of records, such as RecordRetention; unlimited if zero
	Log       *slog.Logger
	Metrics   prometheus.Registerer
}

const (
	consumerRoundTimeout = 20 * time.Second
	requestLimit         = 1000 // ranges in one request
	purgeEvery           = time.Hour
)

// NewConsumer returns the consumer's side of the protocol.
func NewConsumer(cfg ConsumerConfig) *Consumer {
	c := &Consumer{cfg: cfg, missing: prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "headgate_events_missing", Help: "Published events without a consumed-event record although the consumer group has caught up.",
	}, []string{"topic", "producer"})}
	cfg.Metrics.MustRegister(c.missing)
	return c
}

// Run implements service.Runner.
func (c *Consumer) Run(ctx context.Context) error {
	tick := time.NewTicker(c.cfg.Interval)
	defer tick.Stop()
	purge := time.NewTicker(purgeEvery)
	defer purge.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-purge.C:
			c.purge(ctx)
		case <-tick.C:
		}
		if err := c.reconcile(ctx); err != nil && ctx.Err() == nil {
			c.cfg.Log.WarnContext(ctx, "reconciliation with producers failed; retrying",
				"error", err.Error(), "next_in_ms", c.cfg.Interval.Milliseconds())
		}
	}
}

func (c *Consumer) reconcile(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, consumerRoundTimeout)
	defer cancel()
	// The position is read before the records: an event that arrives in between is
	// then not taken for lost.
	caughtUp, err := CaughtUp(ctx, c.cfg.Redis, c.cfg.Topic, c.cfg.Group)
	if err != nil {
		return err
	}
	posted, err := c.cfg.Redis.HGetAll(ctx, watermarksKey(c.cfg.Topic)).Result()
	if err != nil {
		return fmt.Errorf("read watermarks of %s: %w", c.cfg.Topic, err)
	}
	var faults []error
	for producer, data := range posted {
		var w Watermark
		if err := json.Unmarshal([]byte(data), &w); err != nil {
			faults = append(faults, fmt.Errorf("decode watermark of %s: %w", producer, err))
			continue
		}
		w.Producer, w.Topic = producer, c.cfg.Topic
		faults = append(faults, c.compare(ctx, w, caughtUp))
	}
	return errors.Join(faults...)
}

// compare stores the watermark, finds the gaps below it and requests them.
func (c *Consumer) compare(ctx context.Context, w Watermark, caughtUp time.Time) error {
	if err := c.store(ctx, w); err != nil {
		return err
	}
	ranges, err := c.missingRanges(ctx, w)
	if err != nil {
		return err
	}
	hours, err := c.differingHours(ctx, w)
	if err != nil {
		return err
	}
	n := int64(0)
	if caughtUp.After(w.At) { // otherwise they may still be in the stream
		for _, r := range ranges {
			n += r.Last - r.First + 1
		}
	}
	c.missing.WithLabelValues(string(c.cfg.Topic), w.Producer).Set(float64(n))
	return c.request(ctx, w.Producer, RepublishRequest{Group: c.cfg.Group, CaughtUp: caughtUp, Ranges: ranges, Hours: hours})
}

// request posts the request to a producer. An empty one withdraws the last, and so
// does a group that has not begun to read.
func (c *Consumer) request(ctx context.Context, producer string, request RepublishRequest) error {
	key := requestsKey(c.cfg.Topic, producer)
	if request.empty() || request.CaughtUp.IsZero() {
		if err := c.cfg.Redis.HDel(ctx, key, c.cfg.Group).Err(); err != nil {
			return fmt.Errorf("withdraw republish request to %s: %w", producer, err)
		}
		return nil
	}
	data, err := json.Marshal(request)
	if err != nil {
		return fmt.Errorf("encode republish request: %w", err)
	}
	if err := c.cfg.Redis.HSet(ctx, key, c.cfg.Group, data).Err(); err != nil {
		return fmt.Errorf("post republish request to %s: %w", producer, err)
	}
	return nil
}

// store keeps the watermark. An older one does not replace a newer one.
func (c *Consumer) store(ctx context.Context, w Watermark) error {
	const watermark = `
		INSERT INTO published_watermarks AS w (topic, producer, published_seq, reported_at) VALUES ($1, $2, $3, $4)
		ON CONFLICT (topic, producer) DO UPDATE
		SET published_seq = greatest(w.published_seq, excluded.published_seq), reported_at = greatest(w.reported_at, excluded.reported_at)`
	const hours = `
		INSERT INTO hourly_checksums AS h (topic, producer, hour, count, sum, last_seq)
		SELECT $1, $2, hour, count, sum, last_seq
		FROM unnest($3::bigint[], $4::bigint[], $5::numeric[], $6::bigint[]) AS t (hour, count, sum, last_seq)
		ON CONFLICT (topic, producer, hour) DO UPDATE
		SET count = excluded.count, sum = excluded.sum, last_seq = excluded.last_seq, matched = false
		WHERE (h.count, h.sum) <> (excluded.count, excluded.sum) AND excluded.last_seq >= h.last_seq`
	var hour, count, last []int64
	var sum []string
	for _, h := range w.Hours {
		hour, count, sum, last = append(hour, h.Hour), append(count, h.Count), append(sum, h.Sum), append(last, h.LastSeq)
	}
	batch := &pgx.Batch{}
	batch.Queue(watermark, w.Topic, w.Producer, w.Seq, w.At)
	batch.Queue(hours, w.Topic, w.Producer, hour, count, sum, last)
	if err := c.cfg.Database.SendBatch(ctx, batch).Close(); err != nil {
		return fmt.Errorf("store watermark of %s: %w", w.Producer, err)
	}
	return nil
}

// missingRanges returns the gaps below the watermark, and stores the number up to
// which there is none. Numbers below that are never compared again, so the cost is
// that of what is new.
func (c *Consumer) missingRanges(ctx context.Context, w Watermark) ([]SeqRange, error) {
	var consumed int64
	const read = `SELECT consumed_seq FROM published_watermarks WHERE topic = $1 AND producer = $2`
	if err := c.cfg.Database.QueryRow(ctx, read, w.Topic, w.Producer).Scan(&consumed); err != nil {
		return nil, fmt.Errorf("read consumed sequence number: %w", err)
	}
	ranges, err := findMissing(ctx, c.cfg.Database, w, consumed, requestLimit)
	if err != nil {
		return nil, err
	}
	complete := max(consumed, w.Seq)
	if len(ranges) > 0 {
		complete = ranges[0].First - 1
	}
	const write = `UPDATE published_watermarks SET consumed_seq = $3 WHERE topic = $1 AND producer = $2 AND consumed_seq < $3`
	if _, err := c.cfg.Database.Exec(ctx, write, w.Topic, w.Producer, complete); err != nil {
		return nil, fmt.Errorf("store consumed sequence number: %w", err)
	}
	return ranges, nil
}

// differingHours compares the hours that are over and have not matched yet, and
// returns those whose checksums differ.
func (c *Consumer) differingHours(ctx context.Context, w Watermark) ([]int64, error) {
	const query = `
		SELECT hour, count, sum::text, last_seq FROM hourly_checksums
		WHERE topic = $1 AND producer = $2 AND NOT matched AND last_seq <= $3 AND hour < $4
			AND hour >= extract(epoch FROM now() - $5::interval) / 3600
		ORDER BY hour`
	rows, err := c.cfg.Database.Query(ctx, query, w.Topic, w.Producer, w.Seq, currentHour(), OutboxRetention)
	if err != nil {
		return nil, fmt.Errorf("read published checksums: %w", err)
	}
	hours, err := pgx.CollectRows(rows, scanChecksum)
	if err != nil {
		return nil, fmt.Errorf("read published checksums: %w", err)
	}
	var differ []int64
	for _, published := range hours {
		recorded, err := recordedChecksum(ctx, c.cfg.Database, w, published.Hour)
		if err != nil {
			return nil, err
		}
		if !recorded.matches(published) {
			differ = append(differ, published.Hour)
			continue
		}
		if err := c.markMatched(ctx, w, published); err != nil {
			return nil, err
		}
	}
	return differ, nil
}

func (c *Consumer) markMatched(ctx context.Context, w Watermark, hour HourlyChecksum) error {
	const query = `UPDATE hourly_checksums SET matched = true WHERE topic = $1 AND producer = $2 AND hour = $3 AND (count, sum) = ($4, $5::numeric)`
	if _, err := c.cfg.Database.Exec(ctx, query, w.Topic, w.Producer, hour.Hour, hour.Count, hour.Sum); err != nil {
		return fmt.Errorf("mark the checksum of an hour as matched: %w", err)
	}
	return nil
}

// purge deletes the records of events that no outbox holds any more.
func (c *Consumer) purge(ctx context.Context) {
	if c.cfg.Retention == 0 {
		return
	}
	before := time.Now().Add(-c.cfg.Retention)
	batch := &pgx.Batch{}
	batch.Queue(`DELETE FROM consumed_events WHERE consumed_at < $1`, before)
	batch.Queue(`DELETE FROM hourly_checksums WHERE topic = $1 AND hour < $2`, c.cfg.Topic, before.Unix()/3600)
	if err := c.cfg.Database.SendBatch(ctx, batch).Close(); err != nil {
		c.cfg.Log.WarnContext(ctx, "consumed-event record purge failed; retrying",
			"error", err.Error(), "next_in_ms", purgeEvery.Milliseconds())
	}
}
