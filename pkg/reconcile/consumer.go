package reconcile

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"

	"github.com/headgate/headgate/pkg/bus"
	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/pkg/postgres"
)

// Consumer compares the published watermarks of a topic with the consumed-event
// records of a group, and requests from each producer what is missing. Every
// instance of a service may run one.
type Consumer struct {
	cfg     ConsumerConfig
	metrics consumerMetrics
	poster  *poster
	memory
}

// memory is what the rounds so far have found in one database. It is used by one round
// at a time.
type memory struct {
	database   string    // in terms of databaseSQL
	since      time.Time // when the database was first seen
	generation string
	uncompared []string // producers that were down when the database was checked
	bases      bases
	posted     map[string][]byte           // the request at each producer
	asked      map[string]RepublishRequest // the same, not encoded
	scanned    map[numbers]scanned
	compared   map[string]time.Time // when a producer was last compared
	next       map[string]HourChunk // where the next chunk of an hour begins, by producer
	finished   finished
	reported   map[string]time.Time // the times of the watermarks when the check began, by producer
}

func newMemory(database string) memory {
	return memory{
		database: database, since: time.Now(),
		bases: bases{}, posted: map[string][]byte{}, asked: map[string]RepublishRequest{},
		scanned: map[numbers]scanned{}, compared: map[string]time.Time{}, next: map[string]HourChunk{},
		finished: finished{},
	}
}

// ConsumerConfig says whose records are compared.
type ConsumerConfig struct {
	Database  *postgres.Pool // with WatermarksSchema and consumed-event records
	Redis     redis.UniversalClient
	Topic     event.Topic
	Group     string
	Producers []string // that publish on Topic, such as event.Topic.Producers
	// Authenticity is that of the group's consumer; it may be nil.
	Authenticity *bus.Authenticity
	Interval     time.Duration
	Retention    time.Duration // of records, such as RecordRetention; unlimited if zero
	// ProducersTimeout is how long the check of a database waits for producers that are down; a
	// minute if zero. They are compared when they come back.
	ProducersTimeout time.Duration
	// Restored is called in one instance when the database was found to be an older copy
	// of itself, before anything is requested from the producers. handled are the events
	// that the lost database had handled; those that the copy lacks are going to be
	// published again. It is called once, and once more for each producer that was down then
	// and knows that the database is older. If it fails, it is called again. It may be nil.
	Restored func(ctx context.Context, handled Handled) error
	Log      *slog.Logger
	Metrics  prometheus.Registerer
}

const (
	consumerRoundTimeout = 20 * time.Second
	requestLimit         = 10_000 // ranges that are looked for in an epoch, besides the unfilled ones
	// While a request is open, rounds follow faster.
	openInterval = 500 * time.Millisecond
)

// Handled says which events a group had handled.
type Handled struct {
	// Numbers are, by producer and epoch, the highest number that was handled.
	Numbers map[string]map[string]int64
	// Until is when that was, by the stream. It is for people: producers have clocks of
	// their own.
	Until time.Time
}

// add adds what a consumed watermark says.
func (h *Handled) add(w ConsumedWatermark) {
	for producer, epochs := range w.Producers {
		for epoch, consumed := range epochs {
			h.addNumber(producer, epoch, max(consumed.Seq, consumed.Seen))
		}
	}
	h.Until = latest(h.Until, w.HandledUntil)
}

func (h *Handled) addNumber(producer, epoch string, seq int64) {
	if h.Numbers[producer] == nil {
		h.Numbers[producer] = map[string]int64{}
	}
	h.Numbers[producer][epoch] = max(h.Numbers[producer][epoch], seq)
}

// addAcknowledged adds what the group has acknowledged in the stream: it was not posted yet
// if the lost database had handled it in its last second.
func (c *Consumer) addAcknowledged(ctx context.Context, h *Handled, position bus.Position) error {
	err := c.cfg.Authenticity.Acknowledged(ctx, c.cfg.Redis, string(c.cfg.Topic), c.cfg.Group, func(e event.Event) {
		if e.ProducerSeq > 0 {
			h.addNumber(e.Producer, e.ProducerEpoch, e.ProducerSeq)
		}
	})
	if err != nil {
		return err
	}
	h.Until = latest(h.Until, position.HandledUntil)
	return nil
}

// NewConsumer returns the consumer's side of the protocol.
func NewConsumer(cfg ConsumerConfig) *Consumer {
	if cfg.ProducersTimeout == 0 {
		cfg.ProducersTimeout = time.Minute
	}
	return &Consumer{cfg: cfg, metrics: newConsumerMetrics(cfg.Metrics), poster: newPoster(cfg), memory: newMemory("")}
}

// Run implements service.Runner.
func (c *Consumer) Run(ctx context.Context) error {
	outage := newOutage(c.cfg.Log, "producers")
	var posting sync.WaitGroup
	defer posting.Wait()
	posting.Go(func() { c.poster.run(ctx) })
	c.purge(ctx)
	next := time.NewTimer(0)
	defer next.Stop()
	purge := time.NewTicker(purgeEvery)
	defer purge.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-purge.C:
			c.purge(ctx)
			continue
		case <-c.poster.replaced: // Some work waits for the check of the new database.
			next.Reset(0)
			continue
		case <-next.C:
		}
		pause := c.cfg.Interval
		err := c.reconcile(ctx)
		if ctx.Err() == nil {
			outage.Record(ctx, "", err)
		}
		if err == nil && len(c.posted) > 0 {
			pause = min(pause, openInterval)
		}
		if err == nil && c.generation == "" {
			pause = min(pause, openInterval)
		}
		next.Reset(pause)
	}
}

func (c *Consumer) reconcile(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, consumerRoundTimeout)
	defer cancel()
	// First the watermarks, then the end of the stream, then the position of the group,
	// then the records: only in this order does a missing record prove a loss.
	watermarks, undecoded, err := c.read(ctx)
	if err != nil {
		return err
	}
	position, err := bus.GroupPosition(ctx, c.cfg.Redis, string(c.cfg.Topic), c.cfg.Group)
	if err != nil {
		return err
	}
	checked, err := c.check(ctx, watermarks, position)
	faults := []error{undecoded, err}
	if !checked {
		return errors.Join(faults...)
	}
	for _, w := range watermarks {
		if !slices.Contains(c.uncompared, w.Producer) {
			faults = append(faults, c.compare(ctx, w, position))
		}
	}
	return errors.Join(faults...)
}

// read returns the watermarks of the topic. undecoded is an error if some could not
// be decoded; the others are returned nevertheless.
func (c *Consumer) read(ctx context.Context) (watermarks []Watermark, undecoded, err error) {
	producers, err := c.producers(ctx)
	if err != nil {
		return nil, nil, err
	}
	posted := make([]*redis.StringCmd, len(producers))
	pipe := c.cfg.Redis.Pipeline()
	for i, producer := range producers {
		posted[i] = pipe.Get(ctx, watermarkKey(c.cfg.Topic, producer))
	}
	if _, err := pipe.Exec(ctx); err != nil && !errors.Is(err, redis.Nil) {
		return nil, nil, fmt.Errorf("read watermarks of %s: %w", c.cfg.Topic, err)
	}
	var faults []error
	for i, producer := range producers {
		data, err := posted[i].Bytes()
		if errors.Is(err, redis.Nil) {
			continue
		}
		if err != nil {
			return nil, nil, fmt.Errorf("read watermark of %s on %s: %w", producer, c.cfg.Topic, err)
		}
		var w Watermark
		if err := json.Unmarshal(data, &w); err != nil {
			faults = append(faults, fmt.Errorf("decode watermark of %s: %w", producer, err))
			continue
		}
		w.Producer, w.Topic = producer, c.cfg.Topic
		watermarks = append(watermarks, w)
	}
	return watermarks, errors.Join(faults...), nil
}

// request posts the request to a producer. An empty one withdraws the last.
func (c *Consumer) request(ctx context.Context, producer string, request RepublishRequest) error {
	key := requestsKey(c.cfg.Topic, producer)
	if request.empty() {
		delete(c.posted, producer)
		delete(c.asked, producer)
		if err := c.cfg.Redis.HDel(ctx, key, c.cfg.Group).Err(); err != nil {
			return fmt.Errorf("withdraw republish request to %s: %w", producer, err)
		}
		return nil
	}
	data, err := json.Marshal(request)
	if err != nil {
		return fmt.Errorf("encode republish request: %w", err)
	}
	if err := sameDatabase(ctx, c.cfg.Database, c.database); err != nil {
		return err
	}
	if !bytes.Equal(data, c.posted[producer]) {
		c.posted[producer], c.asked[producer] = data, request
	}
	if err := c.cfg.Redis.HSet(ctx, key, c.cfg.Group, data).Err(); err != nil {
		return fmt.Errorf("post republish request to %s: %w", producer, err)
	}
	return nil
}
