package reconcile

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"

	"github.com/headgate/headgate/pkg/event"
)

// Producer posts the published watermarks of an outbox and publishes again what
// consumers request: a broker that was emptied, failed over or restored costs a
// delay, not an event. Every instance of a producer may run one.
type Producer struct {
	cfg         ProducerConfig
	republished prometheus.Counter
}

// ProducerConfig says whose outbox is reconciled.
type ProducerConfig struct {
	Name     string // of the producer
	Outbox   Outbox
	Redis    redis.UniversalClient
	Interval time.Duration
	Log      *slog.Logger
	Metrics  prometheus.Registerer
}

// Outbox is what a Producer needs of the tables that hold its events.
type Outbox interface {
	// Watermarks returns a watermark for each topic. An event counts as published
	// once that is longer ago than margin. Producer and At are left empty.
	Watermarks(ctx context.Context, margin time.Duration) ([]Watermark, error)
	// Republish publishes again those of the requested events that were published
	// before the given time. It returns how many there were.
	Republish(ctx context.Context, topic event.Topic, request RepublishRequest, before time.Time) (int64, error)
}

const (
	longestMargin        = 10 * time.Second
	producerRoundTimeout = 10 * time.Second
)

// NewProducer returns the producer's side of the protocol.
func NewProducer(cfg ProducerConfig) *Producer {
	p := &Producer{cfg: cfg, republished: prometheus.NewCounter(prometheus.CounterOpts{
		Name: "headgate_outbox_republished_total", Help: "Events republished after loss.",
	})}
	cfg.Metrics.MustRegister(p.republished)
	return p
}

// Run implements service.Runner.
func (p *Producer) Run(ctx context.Context) error {
	tick := time.NewTicker(p.cfg.Interval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		if err := p.reconcile(ctx); err != nil && ctx.Err() == nil {
			p.cfg.Log.WarnContext(ctx, "reconciliation with consumers failed; retrying",
				"error", err.Error(), "next_in_ms", p.cfg.Interval.Milliseconds())
		}
	}
}

func (p *Producer) reconcile(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, producerRoundTimeout)
	defer cancel()
	watermarks, err := p.cfg.Outbox.Watermarks(ctx, p.margin())
	if err != nil {
		return err
	}
	now := time.Now().UTC()
	var faults []error
	for _, w := range watermarks {
		w.Producer, w.At = p.cfg.Name, now
		faults = append(faults, p.post(ctx, w), p.answerRequests(ctx, w.Topic))
	}
	return errors.Join(faults...)
}

// margin is how long ago an event must have been published to count as published.
// It also covers the difference between the clocks of Redis and Postgres.
func (p *Producer) margin() time.Duration { return min(p.cfg.Interval, longestMargin) }

func (p *Producer) post(ctx context.Context, w Watermark) error {
	data, err := json.Marshal(w)
	if err != nil {
		return fmt.Errorf("encode watermark: %w", err)
	}
	if err := p.cfg.Redis.HSet(ctx, watermarksKey(w.Topic), w.Producer, data).Err(); err != nil {
		return fmt.Errorf("post watermark of %s: %w", w.Topic, err)
	}
	return nil
}

// answerRequests republishes what the consumers of a topic have requested.
func (p *Producer) answerRequests(ctx context.Context, topic event.Topic) error {
	requests, err := p.cfg.Redis.HGetAll(ctx, requestsKey(topic, p.cfg.Name)).Result()
	if err != nil {
		return fmt.Errorf("read republish requests for %s: %w", topic, err)
	}
	var faults []error
	for group, data := range requests {
		var request RepublishRequest
		if err := json.Unmarshal([]byte(data), &request); err != nil {
			faults = append(faults, fmt.Errorf("decode republish request of %s for %s: %w", group, topic, err))
			continue
		}
		if request.empty() {
			continue
		}
		n, err := p.cfg.Outbox.Republish(ctx, topic, request, request.CaughtUp.Add(-p.margin()))
		faults = append(faults, err)
		if n > 0 {
			p.republished.Add(float64(n))
			p.cfg.Log.WarnContext(ctx, "events republished after loss", "topic", string(topic), "group", group, "count", n)
		}
	}
	return errors.Join(faults...)
}
