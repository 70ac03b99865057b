package bus

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"
)

// SubscriberConfig says which group of consumers a subscriber belongs to. Zero
// members get their defaults.
type SubscriberConfig struct {
	Client   redis.UniversalClient // stays open
	Group    string
	Consumer string   // stable name of this instance, unique in the group
	Groups   []string // every group that must have seen an entry before it is trimmed; Group is one of them

	Window              int           // messages in flight; 64. Up to a sixteenth more are entries of consumers that died
	MaxIdle             time.Duration // after which another consumer takes an entry over; 15 s
	MaxDeliveries       int64         // without an answer, after which an entry counts as a crash loop; 8
	NackBackoff         time.Duration // before the first redelivery, then doubled; 1 s
	DrainTimeout        time.Duration // how long Close waits for answers; 30 s
	Retain              time.Duration // how long an acknowledged entry stays in the stream; 10 minutes
	ConsumerTTL         time.Duration // after which an idle consumer without pending entries is removed; 1 hour
	MaintenanceInterval time.Duration // between two rounds of metrics, trimming and removal of idle consumers; 15 s

	Log     *slog.Logger
	Metrics prometheus.Registerer // none if nil
}

func (cfg SubscriberConfig) withDefaults() SubscriberConfig {
	defaults := []struct{ member, value *time.Duration }{
		{&cfg.MaxIdle, new(15 * time.Second)},
		{&cfg.NackBackoff, new(time.Second)},
		{&cfg.DrainTimeout, new(30 * time.Second)},
		{&cfg.Retain, new(10 * time.Minute)},
		{&cfg.ConsumerTTL, new(time.Hour)},
		{&cfg.MaintenanceInterval, new(15 * time.Second)},
	}
	for _, d := range defaults {
		if *d.member == 0 {
			*d.member = *d.value
		}
	}
	if cfg.Window == 0 {
		cfg.Window = 64
	}
	if cfg.MaxDeliveries == 0 {
		cfg.MaxDeliveries = 8
	}
	return cfg
}

// Subscriber reads streams as a member of a consumer group, with a window of
// messages in flight. In place of watermill-redisstream's, because that one
// ends at the first malformed entry, never recovers a lost group, takes slow
// messages from itself and drops acknowledgements when it closes.
//
// Each message is delivered at least once, in no particular order. A negatively
// acknowledged one comes again after a pause. An entry that cannot be decoded
// comes as a message with the metadata MalformedKey, one whose consumers keep
// dying with CrashLoopKey.
type Subscriber struct {
	cfg     SubscriberConfig
	metrics *streamMetrics
	closing chan struct{}
	once    sync.Once
	running sync.WaitGroup

	failing atomic.Pointer[failure]
}

// failure says since when a stream cannot be read, and why.
type failure struct {
	since time.Time
	err   error
}

var _ message.Subscriber = (*Subscriber)(nil)

const (
	readBlock          = time.Second
	readBatch          = 256 // entries in one read: the next is on its way while these are handled
	firstBackoff       = 100 * time.Millisecond
	longestBackoff     = 5 * time.Second
	longestNackBackoff = 30 * time.Second
	claimEvery         = time.Second
	closeTimeout       = 5 * time.Second  // for the last commands to Redis on Close
	unhealthy          = 15 * time.Second // of reads that fail
)

// NewSubscriber returns a subscriber.
func NewSubscriber(cfg SubscriberConfig) *Subscriber {
	cfg = cfg.withDefaults()
	return &Subscriber{cfg: cfg, metrics: newStreamMetrics(cfg.Metrics), closing: make(chan struct{})}
}

// ErrClosed says that the subscriber has been closed.
var ErrClosed = errors.New("subscriber is closed")

// Subscribe implements message.Subscriber. It returns at once, even while Redis
// is away; the group is made at the stream's beginning when it is missing, now
// or after Redis lost its data. The channel is closed after ctx has ended or
// Close was called and every message in flight was answered, or DrainTimeout
// has passed, at which the contexts of those still in flight are cancelled.
func (s *Subscriber) Subscribe(ctx context.Context, topic string) (<-chan *message.Message, error) {
	select {
	case <-s.closing:
		return nil, ErrClosed
	default:
	}
	sub := newSubscription(s, topic)
	stop, cancel := context.WithCancel(ctx)
	s.running.Go(func() {
		defer cancel()
		select {
		case <-s.closing:
		case <-stop.Done():
		}
	})
	s.running.Go(func() {
		defer cancel()
		sub.run(stop)
	})
	return sub.out, nil
}

// Close implements message.Subscriber: it stops reading, waits until every
// message in flight is answered and acknowledged in Redis, and hands the rest
// back, so that another consumer takes it at once.
func (s *Subscriber) Close() error {
	s.once.Do(func() { close(s.closing) })
	s.running.Wait()
	return nil
}

// Healthy is a readiness check: it says since when the stream cannot be read,
// once that is longer than a reconnect takes.
func (s *Subscriber) Healthy(context.Context) error {
	if f := s.failing.Load(); f != nil && time.Since(f.since) > unhealthy {
		return fmt.Errorf("stream not readable for %s: %w", time.Since(f.since).Round(time.Second), f.err)
	}
	return nil
}

// subscription is one stream read by one consumer.
type subscription struct {
	*Subscriber
	topic      string
	out        chan *message.Message
	fresh      slots // for entries that were never delivered before
	claimed    slots // for entries of consumers that died; separate, because an idle reader reserves all of fresh
	quarantine slots // for the one entry that may be what kills its consumers
	acks       chan []string
	lookup     prometheus.Labels

	mu       sync.Mutex
	inFlight map[string]struct{}
}

func newSubscription(s *Subscriber, topic string) *subscription {
	claimed := min(max(1, s.cfg.Window/16), 32)
	return &subscription{
		Subscriber: s,
		topic:      topic,
		out:        make(chan *message.Message),
		fresh:      newSlots(s.cfg.Window),
		claimed:    newSlots(claimed),
		quarantine: newSlots(1),
		acks:       make(chan []string, s.cfg.Window),
		lookup:     prometheus.Labels{"topic": topic, "group": s.cfg.Group},
		inFlight:   map[string]struct{}{},
	}
}

// run reads until stop ends, then drains. Work in flight goes on under a context
// that ends only with the time for that.
func (s *subscription) run(stop context.Context) {
	work, giveUp := context.WithCancel(context.WithoutCancel(stop))
	defer giveUp()
	last := context.WithoutCancel(stop)
	var acker, deliveries, upkeep, renewer sync.WaitGroup
	acker.Go(func() { s.acknowledge(last, stop) })

	dispatch := func(from slots, entries []redis.XMessage, counts map[string]int64) {
		added := s.track(s.withoutDeleted(last, entries))
		from.release(len(entries) - len(added))
		if counts == nil {
			deliveries.Go(func() { s.deliver(stop, work, added, from, &deliveries) })
			return
		}
		for _, entry := range added {
			deliveries.Go(func() {
				defer from.release(1)
				s.redeliver(stop, work, entry, counts[entry.ID])
			})
		}
	}
	renewing, stopRenewing := context.WithCancel(last)
	upkeep.Go(func() { every(stop, min(claimEvery, s.cfg.MaxIdle/3), func() { s.claim(stop, dispatch) }) })
	upkeep.Go(func() { every(stop, s.cfg.MaintenanceInterval, func() { s.maintain(stop) }) })
	renewer.Go(func() { every(renewing, s.cfg.MaxIdle/3, func() { s.renew(renewing) }) })
	s.read(stop, dispatch)

	upkeep.Wait()
	drained := time.AfterFunc(s.cfg.DrainTimeout, giveUp)
	deliveries.Wait()
	drained.Stop()
	stopRenewing()
	renewer.Wait()
	close(s.acks)
	acker.Wait()
	s.releaseInFlight(last)
	close(s.out)
}

// dispatchFunc delivers entries to handlers and gives their slots back when they
// are acknowledged. counts says how often each was delivered; it is nil for entries
// that were never delivered before.
type dispatchFunc func(from slots, entries []redis.XMessage, counts map[string]int64)

// read takes what this consumer had when it died, then new entries, never more
// than it has free slots: nothing is hoarded.
func (s *subscription) read(ctx context.Context, dispatch dispatchFunc) {
	from := "0"
	var pause time.Duration
	for {
		free := s.fresh.reserve(ctx, readBatch)
		if free == 0 {
			return
		}
		entries, err := s.fetch(ctx, from, free)
		s.fresh.release(free - len(entries))
		if ctx.Err() != nil && err != nil {
			return
		}
		if err != nil {
			pause = min(max(2*pause, firstBackoff), longestBackoff)
			s.failing.CompareAndSwap(nil, &failure{time.Now(), err})
			s.recover(ctx, err, pause)
			continue
		}
		pause = 0
		s.failing.Store(nil)
		if from == ">" {
			dispatch(s.fresh, entries, nil)
			continue
		}
		if len(entries) == 0 {
			from = ">"
			continue
		}
		from = entries[len(entries)-1].ID
		dispatch(s.fresh, entries, s.deliveryCounts(ctx, entries))
	}
}

func (s *subscription) fetch(ctx context.Context, from string, count int) ([]redis.XMessage, error) {
	// The deadline tells of a connection that went silent; go-redis alone would
	// wait ten seconds more than the server is asked to.
	ctx, cancel := context.WithTimeout(ctx, readBlock+EventTimeout)
	defer cancel()
	streams, err := s.cfg.Client.XReadGroup(ctx, &redis.XReadGroupArgs{
		Group:    s.cfg.Group,
		Consumer: s.cfg.Consumer,
		Streams:  []string{s.topic, from},
		Count:    int64(count),
		Block:    readBlock,
	}).Result()
	if errors.Is(err, redis.Nil) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", s.topic, err)
	}
	var entries []redis.XMessage
	for _, stream := range streams {
		entries = append(entries, stream.Messages...)
	}
	return entries, nil
}

// recover waits, and makes the group anew if Redis does not know it.
func (s *subscription) recover(ctx context.Context, err error, pause time.Duration) {
	// Redis says NOGROUP, or UNBLOCKED when the stream vanishes during a read.
	if lostGroup(err) || redis.HasErrorPrefix(err, "UNBLOCKED") {
		err = s.cfg.Client.XGroupCreateMkStream(ctx, s.topic, s.cfg.Group, "0").Err()
		if err == nil {
			s.cfg.Log.InfoContext(ctx, "consumer group created", "topic", s.topic, "group", s.cfg.Group)
			return
		}
		if redis.HasErrorPrefix(err, "BUSYGROUP") {
			return
		}
	}
	s.cfg.Log.WarnContext(ctx, "stream not readable", "topic", s.topic, "error", err.Error(), "retry_in_ms", pause.Milliseconds())
	wait(ctx, pause)
}

// wait reports whether pause has passed before ctx ended.
func wait(ctx context.Context, pause time.Duration) bool {
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}
