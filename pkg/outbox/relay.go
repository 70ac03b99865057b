package outbox

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/headgate/headgate/pkg/bus"
	"github.com/headgate/headgate/pkg/postgres"
	"github.com/headgate/headgate/pkg/service"
)

// Relay publishes the rows of the outbox, each topic by itself: a topic that cannot be
// published delays no other. Several relays may work on one database at once.
type Relay struct {
	db        *postgres.Pool
	publisher Publisher
	epochs    *Epochs
	log       *slog.Logger
	published prometheus.Counter
	backlog   *backlog
	retained  *retained
	outage    *service.Outage // by topic; "" is the look for topics

	started     time.Time
	last        atomic.Int64  // when rows were last published, since started
	connections chan struct{} // limits how many topics use a connection at once
	poll        time.Duration // how often it looks for rows without a NOTIFY
}

const (
	pollInterval    = time.Second            // in case a NOTIFY was lost
	unnotifiedPause = 200 * time.Millisecond // between polls behind a pooler, which passes no NOTIFY on
	// After it has published rows, a relay looks for more without a NOTIFY.
	linger       = 3 * notifyEvery
	lingerPause  = notifyEvery
	firstPause   = 100 * time.Millisecond
	longestPause = 5 * time.Second
	// A topic waits like this while another relay has locked earlier rows of the
	// same subjects.
	behindPause        = 5 * time.Millisecond
	longestBehindPause = 100 * time.Millisecond
)

// NewRelay returns a relay that publishes through publisher.
func NewRelay(db *postgres.Pool, publisher Publisher, epochs *Epochs, log *slog.Logger, reg prometheus.Registerer) *Relay {
	r := &Relay{
		db:        db,
		publisher: publisher,
		epochs:    epochs,
		log:       log,
		published: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "headgate_outbox_published_total", Help: "Outbox rows published to a stream.",
		}),
		backlog:  newBacklog(db, log, reg),
		retained: newRetained(db, reg),
		outage: service.NewOutage(service.OutageConfig{
			Log: log, Failing: "publish failed; retrying", Over: "publishing resumed", Parts: "topics",
			Reported: postgres.Disconnected,
		}),
		started: time.Now(),
		poll:    pollInterval,
		// While Redis hangs, each topic keeps a connection busy. Requests need the others.
		connections: make(chan struct{}, max(1, db.Config().MaxConns/2)),
	}
	if _, notified := db.Session(); !notified {
		r.poll = unnotifiedPause
	}
	r.last.Store(-int64(linger))
	reg.MustRegister(r.published)
	return r
}

// Run implements service.Runner: it publishes until ctx ends.
func (r *Relay) Run(ctx context.Context) error {
	var running sync.WaitGroup
	defer running.Wait()
	wake := make(chan struct{}, 1)
	running.Go(func() { r.listen(ctx, wake) })
	running.Go(func() { r.purgeRegularly(ctx) })
	running.Go(func() { r.backlog.run(ctx) })

	topics := make(map[string]chan struct{})
	poll := time.NewTimer(0)
	defer poll.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-wake:
		case <-poll.C:
		}
		waiting, err := r.waitingTopics(ctx)
		if ctx.Err() != nil {
			return nil
		}
		r.record(ctx, "", err)
		for _, topic := range waiting {
			queue := topics[topic]
			if queue == nil {
				queue = make(chan struct{}, 1)
				topics[topic] = queue
				running.Go(func() { r.relayTopic(ctx, topic, queue, wake) })
			}
			signal(queue)
		}
		poll.Reset(r.pollAfter())
	}
}

// signal wakes the receiver, now or when it asks next.
func signal(wake chan<- struct{}) {
	select {
	case wake <- struct{}{}:
	default:
	}
}

func (r *Relay) pollAfter() time.Duration {
	if time.Since(r.started)-time.Duration(r.last.Load()) < linger {
		return lingerPause
	}
	return r.poll
}

// withWaiting names the topics that have unpublished rows, and a last NULL, at
// the cost of one look into the index for each. It asks the table, so that rows of a topic
// that only another release knows are published, too.
const withWaiting = `
	WITH RECURSIVE waiting AS (
		(SELECT topic FROM outbox WHERE published_at IS NULL ORDER BY topic, id + 0 LIMIT 1)
		UNION ALL
		SELECT (SELECT next.topic FROM outbox next
			WHERE next.published_at IS NULL AND next.topic > waiting.topic ORDER BY next.topic, next.id + 0 LIMIT 1)
		FROM waiting
		WHERE waiting.topic IS NOT NULL)`

func (r *Relay) waitingTopics(ctx context.Context) (topics []string, err error) {
	ctx, cancel := context.WithTimeout(ctx, stepTimeout)
	defer cancel()
	batch := &pgx.Batch{}
	batch.Queue(useIndexes)
	batch.Queue(withWaiting + `SELECT topic FROM waiting WHERE topic IS NOT NULL`).Query(func(rows pgx.Rows) (err error) {
		topics, err = pgx.CollectRows(rows, pgx.RowTo[string])
		return err
	})
	if err := r.db.SendBatch(ctx, batch).Close(); err != nil {
		return nil, fmt.Errorf("read topics of the outbox: %w", err)
	}
	return topics, nil
}

// relayTopic publishes the rows of one topic whenever it is woken, until ctx ends. After
// it has published rows it signals idle, because more may have come without a NOTIFY.
func (r *Relay) relayTopic(ctx context.Context, topic string, wake <-chan struct{}, idle chan<- struct{}) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-wake:
		}
		before := r.last.Load()
		r.drain(ctx, topic)
		if r.last.Load() != before {
			signal(idle)
		}
	}
}

// drain publishes the rows of a topic until none is left for this relay.
func (r *Relay) drain(ctx context.Context, topic string) {
	var pause time.Duration
	for ctx.Err() == nil {
		done, err := r.stepWithConnection(ctx, topic)
		if done.published > 0 {
			r.last.Store(int64(time.Since(r.started)))
		}
		if ctx.Err() != nil {
			return
		}
		r.record(ctx, topic, err)
		switch {
		case err != nil:
			pause = min(max(2*pause, firstPause), longestPause)
		case done.published > 0 && done.more:
			pause = 0
		case done.behind > 0:
			pause = min(max(2*pause, behindPause), longestBehindPause)
		default:
			return
		}
		r.sleep(ctx, pause)
	}
}

// blockedAfter is how long the same row may be the oldest unpublished one of a topic. A
// relay retries every five seconds at most, and takes over the rows of a relay that hangs
// after seven.
const blockedAfter = time.Minute

// Healthy returns an error when nothing is published to a topic although rows wait, and
// Redis is not the reason: requests are served without it, and nothing in this service can
// be repaired. It does not compare clocks, and a long queue that moves is healthy.
func (r *Relay) Healthy(context.Context) error {
	var faults []error
	blocked := r.backlog.blocked()
	for _, topic := range slices.Sorted(maps.Keys(blocked)) {
		cause := r.outage.Fault(topic)
		if errors.Is(cause, bus.ErrUnavailable) {
			continue
		}
		fault := fmt.Errorf("events for %s are committed but none was published for %s", topic, blocked[topic].Round(time.Second))
		if cause != nil {
			fault = fmt.Errorf("%w: %w", fault, cause)
		}
		faults = append(faults, fault)
	}
	return errors.Join(faults...)
}

// record logs how long publishing fails, and each single failure at debug.
func (r *Relay) record(ctx context.Context, topic string, err error) {
	if err != nil {
		r.log.DebugContext(ctx, "publish attempt failed", "topic", topic, "error", err.Error())
	}
	if err == nil && errors.Is(r.outage.Fault(topic), bus.ErrUnavailable) {
		r.backlog.resume(topic)
	}
	r.outage.Record(ctx, topic, err)
}

func (r *Relay) stepWithConnection(ctx context.Context, topic string) (progress, error) {
	select {
	case <-ctx.Done():
		return progress{}, nil
	case r.connections <- struct{}{}:
	}
	defer func() { <-r.connections }()
	return r.step(ctx, topic)
}

func (r *Relay) sleep(ctx context.Context, pause time.Duration) {
	if pause == 0 {
		return
	}
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}
