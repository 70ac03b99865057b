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

	"github.com/headgate/headgate/pkg/service"
)

// SubscriberConfig says to which consumer group a subscriber belongs. Zero members
// get their defaults.
type SubscriberConfig struct {
	Client   redis.UniversalClient // Close leaves it open
	Group    string
	Consumer string   // stable name of this instance, unique in the group
	Groups   []string // all groups that must acknowledge an entry before it is trimmed; Group is always one of them

	Window              int           // messages in flight that do not wait for their next attempt; 64. Entries claimed from consumers that died may add a sixteenth
	WaitList            int           // messages in flight that wait for their next attempt; 1024
	MaxIdle             time.Duration // after which another consumer claims an entry; 15 s
	MaxDeliveries       int64         // without an acknowledgement; an entry with more is a crash loop; 8
	NackBackoff         time.Duration // before the first redelivery, then doubled; 1 s
	DrainTimeout        time.Duration // how long Close waits for messages in flight; 30 s
	Retain              time.Duration // how long an acknowledged entry stays in the stream; 10 minutes
	MaxBytes            int64         // of a stream in Redis; acknowledged entries of a larger one stay for a minute only. No limit if zero
	JammedAfter         time.Duration // after which Healthy fails if no event is finished; 1 minute
	UnreadableAfter     time.Duration // after which Healthy fails if reads fail; 15 s. A reconnect takes less
	ConsumerTTL         time.Duration // after which an idle consumer without pending entries is removed; 1 hour
	MaintenanceInterval time.Duration // between two rounds of trimming and removal of idle consumers; 15 s

	Log     *slog.Logger
	Metrics prometheus.Registerer // none if nil
}

// DefaultWindow is the window of a subscriber that sets none.
const DefaultWindow = 64

func (cfg SubscriberConfig) withDefaults() SubscriberConfig {
	defaults := []struct{ member, value *time.Duration }{
		{&cfg.MaxIdle, new(15 * time.Second)},
		{&cfg.NackBackoff, new(time.Second)},
		{&cfg.DrainTimeout, new(30 * time.Second)},
		{&cfg.Retain, new(10 * time.Minute)},
		{&cfg.JammedAfter, new(jammedAfter)},
		{&cfg.UnreadableAfter, new(15 * time.Second)},
		{&cfg.ConsumerTTL, new(time.Hour)},
		{&cfg.MaintenanceInterval, new(15 * time.Second)},
	}
	for _, d := range defaults {
		if *d.member == 0 {
			*d.member = *d.value
		}
	}
	if cfg.Window == 0 {
		cfg.Window = DefaultWindow
	}
	if cfg.WaitList == 0 {
		cfg.WaitList = 1024
	}
	if cfg.MaxDeliveries == 0 {
		cfg.MaxDeliveries = 8
	}
	return cfg
}

// Subscriber reads streams as a member of a consumer group, with a window of
// messages in flight. docs/adr/0001 says why it does not use the subscriber of
// watermill-redisstream.
//
// Each message is delivered at least once, in no particular order. A message with
// a negative acknowledgement is redelivered after NackBackoff. An entry that cannot
// be decoded becomes a message with the metadata MalformedKey; an entry whose
// consumers keep dying becomes one with CrashLoopKey.
//
// Its methods may be called concurrently.
type Subscriber struct {
	cfg     SubscriberConfig
	metrics *streamMetrics
	closing chan struct{}
	once    sync.Once
	running sync.WaitGroup

	mu     sync.Mutex
	owners map[string]*owner // by topic

	subscriptions []*subscription
}

var _ message.Subscriber = (*Subscriber)(nil)

const (
	readBlock          = time.Second
	readBatch          = 256 // entries in one read; the next read runs while these are handled
	firstBackoff       = 100 * time.Millisecond
	longestBackoff     = 5 * time.Second
	longestNackBackoff = 30 * time.Second
	claimEvery         = time.Second
	closeTimeout       = 5 * time.Second // for the last commands to Redis on Close
)

// NewSubscriber returns a subscriber.
func NewSubscriber(cfg SubscriberConfig) *Subscriber {
	cfg = cfg.withDefaults()
	return &Subscriber{cfg: cfg, metrics: newStreamMetrics(cfg.Metrics), closing: make(chan struct{}), owners: map[string]*owner{}}
}

// ownerOf returns the lease of the consumer's name, which all subscriptions of a topic
// share.
func (s *Subscriber) ownerOf(topic string) *owner {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.owners[topic] == nil {
		s.owners[topic] = newOwner(s.cfg.Client, topic, s.cfg.Group, s.cfg.Consumer)
	}
	return s.owners[topic]
}

// ErrClosed says that the subscriber has been closed.
var ErrClosed = errors.New("subscriber is closed")

// Subscribe implements message.Subscriber. It returns at once, even while Redis is
// unavailable. If the group is missing, now or after Redis lost its data, Subscribe
// creates it at the beginning of the stream.
//
// Reading stops when ctx ends or Close is called. The channel is closed when no
// message is in flight any more. After DrainTimeout, the contexts of messages that
// are still in flight are cancelled and the channel is closed.
//
// Subscribe returns ErrClosed after Close.
func (s *Subscriber) Subscribe(ctx context.Context, topic string) (<-chan *message.Message, error) {
	select {
	case <-s.closing:
		return nil, ErrClosed
	default:
	}
	sub := newSubscription(s, topic)
	s.mu.Lock()
	s.subscriptions = append(s.subscriptions, sub)
	s.mu.Unlock()
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

// Close implements message.Subscriber. It stops reading, waits for messages in
// flight and acknowledges them in Redis. It releases entries that were not
// acknowledged, so that another consumer claims them at once.
func (s *Subscriber) Close() error {
	s.once.Do(func() { close(s.closing) })
	s.running.Wait()
	return nil
}

// subscription is one stream read by one consumer.
type subscription struct {
	*Subscriber
	topic      string
	out        chan *message.Message
	fresh      slots // for entries that were never delivered before
	claimed    slots // for entries of consumers that died; separate, because an idle reader reserves all of fresh
	quarantine slots // for one entry at a time that may be what kills its consumers
	waiting    *waitList
	owner      *owner
	outage     *service.Outage // of the commands that are repeated until they succeed
	acks       chan []string
	labels     prometheus.Labels
	failing    atomic.Pointer[failure] // of reads; nil while they succeed

	seen *streamEnd // at the last maintenance; nil before the first

	unacknowledged atomic.Bool // acknowledgements wait, because Redis is unavailable

	mu       sync.Mutex
	inFlight map[string]struct{}
	progress time.Time // since then, entries have been in flight and none was finished
}

func newSubscription(s *Subscriber, topic string) *subscription {
	labels := prometheus.Labels{"topic": topic, "group": s.cfg.Group}
	claimed := min(max(1, s.cfg.Window/16), 32)
	return &subscription{
		Subscriber: s,
		topic:      topic,
		out:        make(chan *message.Message),
		fresh:      newSlots(s.cfg.Window),
		claimed:    newSlots(claimed),
		quarantine: newSlots(1),
		waiting:    newWaitList(s.cfg.WaitList, s.cfg.Window, leaveWhenFull, s.metrics.waiting.With(labels)),
		owner:      s.ownerOf(topic),
		outage: service.NewOutage(service.OutageConfig{
			Log: s.cfg.Log.With("topic", topic), Failing: "stream commands failed; retrying", Over: "stream commands succeed again",
			Parts: "failing", Reported: redisUnavailable,
		}),
		acks:     make(chan []string, s.cfg.Window),
		labels:   labels,
		inFlight: map[string]struct{}{},
	}
}

func (s *subscription) newSlot(from slots) *slot { return &slot{list: s.waiting, from: from} }

// run reads until stop ends, then drains: messages in flight keep their context,
// work, until DrainTimeout has passed, and acknowledgements are still sent.
func (s *subscription) run(stop context.Context) {
	work, cancelWork := context.WithCancel(context.WithoutCancel(stop))
	defer cancelWork()
	background := context.WithoutCancel(stop)
	var acker, deliveries, maintenance, renewer sync.WaitGroup
	acker.Go(func() { s.acknowledge(background, stop) })

	dispatch := func(from slots, entries []redis.XMessage, counts map[string]int64) {
		added := s.track(s.withoutDeleted(background, entries))
		from.release(len(entries) - len(added))
		if counts == nil {
			deliveries.Go(func() { s.deliver(stop, work, added, from, &deliveries) })
			return
		}
		for _, entry := range added {
			deliveries.Go(func() { s.deliverAgain(stop, work, entry, s.newSlot(from), counts[entry.ID]) })
		}
	}
	renewing, stopRenewing := context.WithCancel(background)
	maintenance.Go(func() { every(stop, s.cfg.MaintenanceInterval, func() { s.maintain(stop) }) })
	renewer.Go(func() { every(renewing, s.cfg.MaxIdle/3, func() { s.renew(renewing) }) })
	s.whileOwner(stop, func(reading context.Context) {
		var claims sync.WaitGroup
		defer claims.Wait()
		claims.Go(func() { every(reading, min(claimEvery, s.cfg.MaxIdle/3), func() { s.claim(reading, dispatch) }) })
		s.read(reading, dispatch)
	})

	maintenance.Wait()
	renewer.Go(func() { every(renewing, ownerRenew, func() { _, _ = s.owner.take(renewing) }) }) // Nothing is read any more.
	drained := time.AfterFunc(s.cfg.DrainTimeout, cancelWork)
	deliveries.Wait()
	drained.Stop()
	stopRenewing()
	renewer.Wait()
	close(s.acks)
	acker.Wait()
	s.releaseInFlight(background)
	if err := s.owner.release(background); err != nil {
		s.cfg.Log.DebugContext(background, "consumer name could not be released; it expires", "topic", s.topic, "error", err.Error())
	}
	close(s.out)
}

// dispatchFunc delivers entries to handlers and gives their slots back when they
// are acknowledged. counts says how often each was delivered; it is nil for entries
// that were never delivered before.
type dispatchFunc func(from slots, entries []redis.XMessage, counts map[string]int64)

// read reads the entries that this consumer had in flight when it died, then new
// ones. It never reads more than it has free slots, so that other consumers get
// their share.
func (s *subscription) read(ctx context.Context, dispatch dispatchFunc) {
	from := "0"
	var delay time.Duration
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
			delay = min(max(2*delay, firstBackoff), longestBackoff)
			s.readFailed(err)
			s.recoverRead(ctx, err, delay)
			continue
		}
		delay = 0
		s.failing.Store(nil)
		s.outage.Record(ctx, "read", nil)
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
	// The deadline detects a silent connection; go-redis alone would wait for ten
	// seconds longer than the server blocks.
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

// recoverRead creates the group again if it is missing; else it waits for delay.
func (s *subscription) recoverRead(ctx context.Context, err error, delay time.Duration) {
	// Redis answers NOGROUP, or UNBLOCKED if the stream is deleted during a read.
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
	s.outage.Record(ctx, "read", err)
	wait(ctx, delay)
}

// wait reports whether delay has passed before ctx ended.
func wait(ctx context.Context, delay time.Duration) bool {
	timer := time.NewTimer(delay)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}
