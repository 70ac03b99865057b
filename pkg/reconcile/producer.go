package reconcile

import (
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

	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/pkg/service"
)

// Producer posts the published watermarks of an outbox and publishes again what
// consumers request: a broker that was emptied, failed over or restored costs a
// delay, not an event. Every instance of a producer may run one.
type Producer struct {
	cfg         ProducerConfig
	republished prometheus.Counter
	outage      *service.Outage
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

// Outbox is what a Producer needs of the tables that hold its events. Its methods may
// be called concurrently.
type Outbox interface {
	// Topics returns the topics on which events were or will be numbered.
	Topics(ctx context.Context) ([]event.Topic, error)
	// Check compares the numbers of a topic with what Redis knows of them, and starts a
	// new epoch if the outbox may be an older copy of itself.
	Check(ctx context.Context, topic event.Topic) error
	// StoreConsumed stores the consumed watermarks of a topic by group. The outbox keeps
	// what they have not consumed.
	StoreConsumed(ctx context.Context, topic event.Topic, consumers map[string]ConsumedWatermark) error
	// Watermark returns the watermark of a topic. Producer and At are left empty.
	Watermark(ctx context.Context, topic event.Topic) (Watermark, error)
	// Answer publishes again a part of what is requested, or all. It does nothing if the
	// request is not due or another instance answers it.
	Answer(ctx context.Context, topic event.Topic, request RepublishRequest) (Answer, error)
}

// Answer says what was done for a request.
type Answer struct {
	Sent int64 // events
	More bool  // some are left to send
	Done bool  // the request was answered completely; the next watermark says so
}

const (
	watermarkTimeout = 10 * time.Second
	answerTimeout    = 15 * time.Second
	// After an answer, requests are read this often, for as many rounds.
	busyInterval = 500 * time.Millisecond
	busyRounds   = 20
)

// NewProducer returns the producer's side of the protocol.
func NewProducer(cfg ProducerConfig) *Producer {
	p := &Producer{cfg: cfg, outage: newOutage(cfg.Log, "consumers"), republished: prometheus.NewCounter(prometheus.CounterOpts{
		Name: "headgate_outbox_republished_total", Help: "Events republished after loss.",
	})}
	cfg.Metrics.MustRegister(p.republished)
	return p
}

// Run implements service.Runner. Each topic has a loop that posts its watermark and
// another that answers requests, so that nothing delays a watermark, and no topic
// delays another.
func (p *Producer) Run(ctx context.Context) error {
	var running sync.WaitGroup
	defer running.Wait()
	started := map[event.Topic]bool{}
	tick := time.NewTicker(p.cfg.Interval)
	defer tick.Stop()
	for {
		topics, err := p.topics(ctx)
		p.record(ctx, "topics", err)
		for _, topic := range topics {
			if started[topic] {
				continue
			}
			started[topic] = true
			post := make(chan struct{}, 1)
			running.Go(func() { p.postWatermarks(ctx, topic, post) })
			running.Go(func() { p.answerRequests(ctx, topic, post) })
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

func (p *Producer) topics(ctx context.Context) ([]event.Topic, error) {
	ctx, cancel := context.WithTimeout(ctx, watermarkTimeout)
	defer cancel()
	return p.cfg.Outbox.Topics(ctx)
}

// record records the result of a part of the work, to be logged once for all of them.
func (p *Producer) record(ctx context.Context, part string, err error) {
	if ctx.Err() == nil {
		p.outage.Record(ctx, part, err)
	}
}

// postWatermarks posts the watermark of a topic at each interval, and when woken.
func (p *Producer) postWatermarks(ctx context.Context, topic event.Topic, wake <-chan struct{}) {
	tick := time.NewTicker(p.cfg.Interval)
	defer tick.Stop()
	for {
		p.record(ctx, "watermark of "+string(topic), p.postWatermark(ctx, topic))
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		case <-wake:
		}
	}
}

func (p *Producer) postWatermark(ctx context.Context, topic event.Topic) error {
	ctx, cancel := context.WithTimeout(ctx, watermarkTimeout)
	defer cancel()
	if err := p.cfg.Outbox.Check(ctx, topic); err != nil {
		return err
	}
	consumers, err := readConsumed(ctx, p.cfg.Redis, topic)
	if err != nil {
		return err
	}
	checks := map[string]string{}
	for group, c := range consumers {
		if slices.Contains(c.Uncompared, p.cfg.Name) {
			checks[group] = c.Check
			delete(consumers, group)
			continue
		}
		consumers[group] = ConsumedWatermark{
			Generation: c.Generation, HandledUntil: c.HandledUntil,
			Producers: map[string]map[string]Consumed{p.cfg.Name: c.Producers[p.cfg.Name]},
		}
	}
	if err := p.cfg.Outbox.StoreConsumed(ctx, topic, consumers); err != nil {
		return err
	}
	w, err := p.cfg.Outbox.Watermark(ctx, topic)
	if err != nil {
		return err
	}
	w.Producer, w.At, w.Interval, w.Checks = p.cfg.Name, time.Now().UTC(), p.cfg.Interval, checks
	data, err := json.Marshal(w)
	if err != nil {
		return fmt.Errorf("encode watermark: %w", err)
	}
	pipe := p.cfg.Redis.Pipeline()
	pipe.Set(ctx, watermarkKey(topic, w.Producer), data, 0)
	// A Redis that was emptied learns again what was published.
	pipe.ZAddGT(ctx, KnownKey(string(topic), p.cfg.Name), redis.Z{Score: float64(w.Seq), Member: KnownMember(p.cfg.Name, w.Epoch)})
	if _, err := pipe.Exec(ctx); err != nil {
		return fmt.Errorf("post watermark of %s: %w", topic, err)
	}
	return nil
}

// answerRequests republishes what the consumers of a topic request. While there is
// work, the next round follows at once.
func (p *Producer) answerRequests(ctx context.Context, topic event.Topic, post chan<- struct{}) {
	next := time.NewTimer(0)
	defer next.Stop()
	busy := 0
	for {
		select {
		case <-ctx.Done():
			return
		case <-next.C:
		}
		done, err := p.answerAll(ctx, topic)
		p.record(ctx, "requests for "+string(topic), err)
		switch {
		case err != nil:
			busy = 0
			next.Reset(p.cfg.Interval)
			continue
		case done.More:
			next.Reset(0)
			continue
		case done.Done:
			busy = busyRounds
			select {
			case post <- struct{}{}:
			default:
			}
		}
		if busy > 0 {
			busy--
			next.Reset(min(busyInterval, p.cfg.Interval))
			continue
		}
		next.Reset(p.cfg.Interval)
	}
}

// answerAll answers the requests of all groups, each in part. A request that fails
// does not delay the others.
func (p *Producer) answerAll(ctx context.Context, topic event.Topic) (Answer, error) {
	ctx, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	requests, err := p.cfg.Redis.HGetAll(ctx, requestsKey(topic, p.cfg.Name)).Result()
	if err != nil {
		return Answer{}, fmt.Errorf("read republish requests for %s: %w", topic, err)
	}
	var all Answer
	var faults []error
	for group, data := range requests {
		var request RepublishRequest
		if err := json.Unmarshal([]byte(data), &request); err != nil {
			faults = append(faults, fmt.Errorf("decode republish request of %s for %s: %w", group, topic, err))
			continue
		}
		request.Group = group
		if request.empty() {
			continue
		}
		answer, err := p.cfg.Outbox.Answer(ctx, topic, request)
		faults = append(faults, err)
		all.More, all.Done = all.More || answer.More, all.Done || answer.Done
		if answer.Sent > 0 {
			p.republished.Add(float64(answer.Sent))
			p.cfg.Log.WarnContext(ctx, "events republished after loss", "topic", string(topic), "group", group, "count", answer.Sent)
		}
	}
	return all, errors.Join(faults...)
}
