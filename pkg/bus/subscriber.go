package bus

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/redis/go-redis/v9"
)

// SubscriberConfig says which group of consumers a subscriber belongs to.
type SubscriberConfig struct {
	Client   redis.UniversalClient // stays open
	Group    string
	Consumer string        // stable name of this instance, unique in the group
	Window   int           // messages in flight; 64 if zero
	MaxIdle  time.Duration // after which another consumer takes an entry over; 15 s if zero
	Log      *slog.Logger
}

// Subscriber reads streams as a member of a consumer group, with a window of
// messages in flight. In place of watermill-redisstream's, because that one
// ends at the first malformed entry, never recovers a lost group, takes slow
// messages from itself and drops acknowledgements when it closes.
//
// Each message is delivered at least once, in no particular order. A negatively
// acknowledged one comes again after a pause. An entry that cannot be decoded
// comes as a message with the metadata MalformedKey.
type Subscriber struct {
	cfg     SubscriberConfig
	closing chan struct{}
	once    sync.Once
	running sync.WaitGroup
}

var _ message.Subscriber = (*Subscriber)(nil)

const (
	defaultWindow  = 64
	defaultMaxIdle = 15 * time.Second
	readBlock      = time.Second
	firstPause     = 100 * time.Millisecond
	longestPause   = 5 * time.Second
	nackPause      = time.Second
	longestNack    = 30 * time.Second
	farewell       = 5 * time.Second // for the last words to Redis when closing
)

// NewSubscriber returns a subscriber.
func NewSubscriber(cfg SubscriberConfig) *Subscriber {
	if cfg.Window == 0 {
		cfg.Window = defaultWindow
	}
	if cfg.MaxIdle == 0 {
		cfg.MaxIdle = defaultMaxIdle
	}
	return &Subscriber{cfg: cfg, closing: make(chan struct{})}
}

// ErrClosed says that the subscriber has been closed.
var ErrClosed = errors.New("subscriber is closed")

// Subscribe implements message.Subscriber. It returns at once, even while Redis
// is away; the group is made at the stream's beginning when it is missing, now
// or after Redis lost its data. The channel is closed after ctx has ended or
// Close was called and every message in flight was answered.
func (s *Subscriber) Subscribe(ctx context.Context, topic string) (<-chan *message.Message, error) {
	select {
	case <-s.closing:
		return nil, ErrClosed
	default:
	}
	sub := newSubscription(s.cfg, topic)
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

// subscription is one stream read by one consumer.
type subscription struct {
	cfg   SubscriberConfig
	topic string
	out   chan *message.Message
	fresh slots // for entries that nobody had before
	taken slots // for entries of consumers that died; apart, lest an idle reader hold them all
	acks  chan string

	mu       sync.Mutex
	inFlight map[string]struct{}
}

func newSubscription(cfg SubscriberConfig, topic string) *subscription {
	return &subscription{
		cfg:      cfg,
		topic:    topic,
		out:      make(chan *message.Message),
		fresh:    newSlots(cfg.Window - cfg.Window/4),
		taken:    newSlots(max(1, cfg.Window/4)),
		acks:     make(chan string, cfg.Window),
		inFlight: map[string]struct{}{},
	}
}

// run reads until ctx ends, then drains. Work in flight goes on under a context
// that does not end with ctx.
func (s *subscription) run(ctx context.Context) {
	work := context.WithoutCancel(ctx)
	var acker, deliveries sync.WaitGroup
	acker.Go(func() { s.acknowledge(work, ctx) })

	take := func(from slots, entries []redis.XMessage) {
		for _, entry := range entries {
			if !s.track(entry.ID) {
				from.release(1)
				continue
			}
			deliveries.Go(func() {
				defer from.release(1)
				s.deliver(ctx, work, entry)
			})
		}
	}
	var claimer, renewer sync.WaitGroup
	renewing, stopRenewing := context.WithCancel(work)
	claimer.Go(func() { s.every(ctx, func() { s.claim(ctx, take) }) })
	renewer.Go(func() { s.every(renewing, func() { s.renew(renewing) }) })
	s.read(ctx, take)

	claimer.Wait()
	deliveries.Wait()
	stopRenewing()
	renewer.Wait()
	close(s.acks)
	acker.Wait()
	s.handBack(work)
	close(s.out)
}

// read takes what this consumer had when it died, then new entries, never more
// than it has free slots: nothing is hoarded.
func (s *subscription) read(ctx context.Context, take func(slots, []redis.XMessage)) {
	from := "0"
	var pause time.Duration
	for {
		free := s.fresh.reserve(ctx)
		if free == 0 {
			return
		}
		entries, err := s.fetch(ctx, from, free)
		s.fresh.release(free - len(entries))
		if ctx.Err() != nil && err != nil {
			return
		}
		if err != nil {
			pause = min(max(2*pause, firstPause), longestPause)
			s.recover(ctx, err, pause)
			continue
		}
		pause = 0
		if from != ">" {
			if len(entries) == 0 {
				from = ">"
			} else {
				from = entries[len(entries)-1].ID
			}
		}
		take(s.fresh, entries)
	}
}

func (s *subscription) fetch(ctx context.Context, from string, count int) ([]redis.XMessage, error) {
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
	if strings.Contains(err.Error(), "NOGROUP") || strings.Contains(err.Error(), "UNBLOCKED") {
		err := s.cfg.Client.XGroupCreateMkStream(ctx, s.topic, s.cfg.Group, "0").Err()
		if err == nil {
			s.cfg.Log.InfoContext(ctx, "consumer group created", "topic", s.topic, "group", s.cfg.Group)
			return
		}
		if strings.Contains(err.Error(), "BUSYGROUP") {
			return
		}
	}
	s.cfg.Log.WarnContext(ctx, "stream not readable", "topic", s.topic, "error", err.Error(), "retry_in_ms", pause.Milliseconds())
	select {
	case <-ctx.Done():
	case <-time.After(pause):
	}
}

// track reports whether entry id was not in flight before.
func (s *subscription) track(id string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.inFlight[id]; ok {
		return false
	}
	s.inFlight[id] = struct{}{}
	return true
}

func (s *subscription) untrack(ids ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, id := range ids {
		delete(s.inFlight, id)
	}
}

// deliver hands one entry to the handler until it is acknowledged. When ctx
// ends before a handler has it, the entry is left pending for handBack.
func (s *subscription) deliver(ctx, work context.Context, entry redis.XMessage) {
	for pause := nackPause; ; pause = min(2*pause, longestNack) {
		m := decode(s.topic, entry)
		m.SetContext(work)
		select {
		case <-ctx.Done():
			return
		case s.out <- m:
		}
		select {
		case <-m.Acked():
			s.acks <- entry.ID
			return
		case <-m.Nacked():
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
	}
}
