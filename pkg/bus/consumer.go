package bus

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/ThreeDotsLabs/watermill/message/router/middleware"
	"github.com/cenkalti/backoff/v5"
	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/propagation"

	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/pkg/service"
)

// Handler handles an event. It may be called more than once for the same event, also
// concurrently, and its effect must happen once: it records the event's id in the
// transaction of the effect.
type Handler func(ctx context.Context, e event.Event) error

// Permanent marks an error that no retry can fix: the event becomes a dead letter
// at once.
func Permanent(err error) error { return backoff.Permanent(err) }

// ConsumerConfig says which messages a consumer reads and how it handles them.
type ConsumerConfig struct {
	Topic      event.Topic
	Subscriber message.Subscriber
	// Authenticity checks the messages of Subscriber. A refused message becomes a dead letter
	// at once, and its event does not count as consumed. Authenticity may be nil.
	Authenticity *Authenticity
	// Due are other sources of messages, such as dead letters to be replayed. They come from
	// the service's own database, where only events are that were not refused. Those with
	// RefusedKey are checked again.
	Due         []message.Subscriber
	Handlers    map[string]Handler // by event name
	Rest        Handler            // for all other names; if nil, those events are ignored: counted and acknowledged
	DeadLetters message.Publisher  // must not need Redis

	// Unavailable reports whether an error may mean that a dependency is unavailable,
	// not that the message is at fault. Then Probe decides: if it fails, the circuit
	// breaker opens, and the consumer is paused until Probe succeeds. No attempt is
	// consumed.
	Unavailable func(error) bool
	// Probe returns an error while a dependency is unavailable. It must be cheap, have
	// no effect, and obey its context, which ends after Timeout. If it is nil, no error
	// means an outage.
	Probe func(context.Context) error
	// Contended reports whether an error means that the message waited for a lock in
	// vain. The message is delayed, without an attempt being consumed.
	Contended func(error) bool
	// Consumed writes the consumed-event record: the consumer needs nothing more from
	// the event, because it was handled, was ignored, or is a dead letter. It runs
	// before the acknowledgement and may be called again for the same event. No record
	// is written if it is nil.
	Consumed func(ctx context.Context, e event.Event) error

	Timeout time.Duration // for one attempt; 10 s if zero
	// IsolatedFailureTimeout is how long a message may be delayed: it finds a row locked
	// or a dependency unavailable whose Probe succeeds. After that it counts as failed.
	// 1 hour if zero.
	IsolatedFailureTimeout time.Duration

	Log     *slog.Logger
	Metrics prometheus.Registerer
}

// Consumer runs handlers for a stream: three attempts, one and two seconds
// apart, then the dead letters. A message that waits for its next attempt does
// not delay the others and has no slot in the window. A circuit breaker pauses the
// consumer while a dependency is unavailable.
type Consumer struct {
	cfg     ConsumerConfig
	types   map[string]bool // of the events that Handlers know in some version
	breaker *breaker
	delays  *service.Outage // by message
	handled *prometheus.CounterVec
	seconds *prometheus.HistogramVec
}

const (
	attemptTimeout     = 10 * time.Second
	routerCloseTimeout = 40 * time.Second // of the router: more than DrainTimeout
	deadLettersTopic   = "dead_letters"
)

// NewConsumer returns a consumer of one topic.
func NewConsumer(cfg ConsumerConfig) *Consumer {
	if cfg.Timeout == 0 {
		cfg.Timeout = attemptTimeout
	}
	if cfg.IsolatedFailureTimeout == 0 {
		cfg.IsolatedFailureTimeout = time.Hour
	}
	never := func(error) bool { return false }
	if cfg.Unavailable == nil {
		cfg.Unavailable = never
	}
	if cfg.Contended == nil {
		cfg.Contended = never
	}
	probe := func(ctx context.Context) error {
		if cfg.Probe == nil {
			return nil
		}
		ctx, cancel := context.WithTimeout(ctx, cfg.Timeout)
		defer cancel()
		return cfg.Probe(ctx)
	}
	c := &Consumer{
		cfg:     cfg,
		types:   map[string]bool{},
		breaker: newBreaker(probe),
		delays: service.NewOutage(service.OutageConfig{
			Log: cfg.Log.With("topic", string(cfg.Topic)), Failing: "event delayed; retrying", Over: "no event is delayed any more",
		}),
		handled: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "headgate_events_total", Help: "Attempts to handle an event by result: handled, ignored, failed, paused (a dependency was unavailable), delayed (a row was locked, or only this event found a dependency unavailable) or dead (its dead letter was stored).",
		}, []string{"topic", "name", "result"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "headgate_event_duration_seconds", Help: "Duration of successful attempts to handle an event.",
			Buckets: prometheus.ExponentialBuckets(0.0005, 2, 15),
		}, []string{"topic", "name"}),
	}
	for name := range cfg.Handlers {
		c.types[event.Event{Name: name}.Type()] = true
	}
	paused := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "headgate_consumer_paused", Help: "1 while the consumer's circuit breaker is open, else 0.",
		ConstLabels: prometheus.Labels{"topic": string(cfg.Topic)},
	}, c.breaker.paused)
	cfg.Metrics.MustRegister(c.handled, c.seconds, paused)
	return c
}

// Run implements service.Runner. It reads until ctx ends, then waits for the
// handlers in flight and acknowledges their messages.
func (c *Consumer) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	var prober sync.WaitGroup
	defer prober.Wait()
	defer cancel()
	logger := watermill.NewSlogLoggerWithLevelMapping(c.cfg.Log, map[slog.Level]slog.Level{
		slog.LevelInfo: slog.LevelDebug,
	})
	router, err := message.NewRouter(message.RouterConfig{CloseTimeout: routerCloseTimeout}, logger)
	if err != nil {
		return fmt.Errorf("create router: %w", err)
	}
	// A message that a stop interrupts has not failed: it is released to the stream.
	poison, err := middleware.PoisonQueueWithFilter(countedDeadLetters{c.cfg.DeadLetters, c}, deadLettersTopic, func(err error) bool {
		return !errors.Is(err, errStopped) && !errors.Is(err, errDelayed)
	})
	if err != nil {
		return fmt.Errorf("create router: %w", err)
	}
	router.AddMiddleware(c.decode, c.recordConsumed, poison, c.retry(ctx), middleware.Recoverer) // outermost first
	router.AddConsumerHandler(string(c.cfg.Topic), string(c.cfg.Topic), c.cfg.Subscriber, c.handle)
	for i, due := range c.cfg.Due {
		router.AddConsumerHandler(fmt.Sprintf("due %d", i), string(c.cfg.Topic), due, c.handle)
	}

	prober.Go(func() { c.breaker.probeUntilClosed(ctx, c.logProbe(ctx)) })

	stopped := make(chan error, 1)
	go func() { stopped <- router.Run(context.WithoutCancel(ctx)) }()
	select {
	case err := <-stopped:
		return errors.Join(errors.New("router stopped unexpectedly"), err)
	case <-ctx.Done():
	}
	err = router.Close()
	return errors.Join(err, <-stopped)
}

// logProbe returns a function that logs the probes of the circuit breaker: that it
// closed, and once a minute that it is still open.
func (c *Consumer) logProbe(ctx context.Context) func(open time.Duration, err error) {
	var logged time.Duration
	return func(open time.Duration, err error) {
		switch {
		case err == nil:
			logged = 0
			c.cfg.Log.InfoContext(ctx, "circuit breaker closed", "topic", string(c.cfg.Topic), "paused_ms", open.Milliseconds())
		case open-logged >= time.Minute:
			logged = open
			c.cfg.Log.WarnContext(ctx, "circuit breaker is still open", "topic", string(c.cfg.Topic), "paused_ms", open.Milliseconds(), "error", err.Error())
		}
	}
}

// decoded is the event in a message, or why the message has none.
type decoded struct {
	event event.Event
	fault error
}

type decodedKey struct{}

// decode decodes the message once for all attempts.
func (c *Consumer) decode(next message.HandlerFunc) message.HandlerFunc {
	return func(m *message.Message) ([]*message.Message, error) {
		var d decoded
		d.event, d.fault = c.parse(m)
		m.SetContext(context.WithValue(m.Context(), decodedKey{}, &d))
		return next(m)
	}
}

// decodedOf panics if decode has not run; only the order of middleware in this
// package can cause that.
func decodedOf(m *message.Message) *decoded {
	d, ok := m.Context().Value(decodedKey{}).(*decoded)
	if !ok {
		panic("bus: message was not decoded")
	}
	return d
}

func (c *Consumer) parse(m *message.Message) (event.Event, error) {
	if fault := m.Metadata.Get(MalformedKey); fault != "" {
		return event.Event{}, fmt.Errorf("%w: %s", event.ErrMalformed, fault)
	}
	e, err := event.Parse(m.Payload)
	if err != nil {
		return event.Event{}, err
	}
	if e.ID != m.UUID {
		return event.Event{}, fmt.Errorf("%w: message %.64s carries event %s", event.ErrMalformed, m.UUID, e.ID)
	}
	if stored, _ := m.Context().Value(storedKey{}).(bool); stored && m.Metadata.Get(RefusedKey) == "" {
		return e, nil
	}
	delete(m.Metadata, RefusedKey)
	if err := c.cfg.Authenticity.check(m.Context(), c.cfg.Topic, m, e); err != nil {
		m.Metadata.Set(RefusedKey, err.Error())
		return e, err
	}
	return e, nil
}

// storedKey is in the contexts of messages that come from the service's own database.
type storedKey struct{}

// recordConsumed calls Consumed for each event that is about to be acknowledged.
func (c *Consumer) recordConsumed(next message.HandlerFunc) message.HandlerFunc {
	if c.cfg.Consumed == nil {
		return next
	}
	return func(m *message.Message) ([]*message.Message, error) {
		out, err := next(m)
		if d := decodedOf(m); err == nil && d.fault == nil {
			if err := c.cfg.Consumed(m.Context(), d.event); err != nil {
				return nil, fmt.Errorf("write consumed-event record: %w", err)
			}
		}
		return out, err
	}
}

// handle is one attempt at one message.
func (c *Consumer) handle(m *message.Message) error {
	d := decodedOf(m)
	if d.fault != nil {
		return Permanent(d.fault)
	}
	if count := m.Metadata.Get(CrashLoopKey); count != "" {
		return Permanent(fmt.Errorf("crash loop: delivered %s times without an acknowledgement", count))
	}
	e := d.event
	handler, err := c.handlerFor(e)
	if err != nil {
		return Permanent(err)
	}
	if handler == nil {
		c.handled.WithLabelValues(string(c.cfg.Topic), "other", "ignored").Inc()
		return nil
	}
	ctx, cancel := context.WithTimeout(withCause(m.Context(), e), c.cfg.Timeout)
	defer cancel()
	start := time.Now()
	if err := handler(ctx, e); err != nil {
		if errors.Is(err, event.ErrMalformed) {
			return Permanent(err)
		}
		return err
	}
	took := time.Since(start)
	label := c.label(e.Name)
	c.handled.WithLabelValues(string(c.cfg.Topic), label, "handled").Inc()
	c.seconds.WithLabelValues(string(c.cfg.Topic), label).Observe(took.Seconds())
	c.logHandled(ctx, e, took)
	return nil
}

// logHandled logs that an event was handled. With the request id of its origin, which
// ctx adds, the lines of all services that a request concerns are found by one id.
func (c *Consumer) logHandled(ctx context.Context, e event.Event, took time.Duration) {
	if !c.cfg.Log.Enabled(ctx, slog.LevelInfo) {
		return
	}
	//nolint:sloglint // Pairs would allocate for each event.
	c.cfg.Log.LogAttrs(ctx, slog.LevelInfo, "event handled",
		slog.String("event", e.Name), slog.String("event_id", e.ID), slog.String("topic", string(c.cfg.Topic)),
		slog.Float64("duration_ms", float64(took.Microseconds())/1000), slog.Int64("lag_ms", time.Since(e.OccurredAt).Milliseconds()))
}

// ErrUnknownVersion says that this release knows the type of an event, but not this
// version of it. A newer release can replay the dead letter.
var ErrUnknownVersion = errors.New("unknown version of a known event")

// handlerFor returns nil for an event that this consumer ignores.
func (c *Consumer) handlerFor(e event.Event) (Handler, error) {
	if handler, ok := c.cfg.Handlers[e.Name]; ok {
		return handler, nil
	}
	if c.types[e.Type()] {
		return nil, fmt.Errorf("%w: %s", ErrUnknownVersion, e.Name)
	}
	return c.cfg.Rest, nil
}

// label returns the name for metrics. Unknown names share one label, so that nobody
// can create time series by publishing events.
func (c *Consumer) label(name string) string {
	if _, ok := c.cfg.Handlers[name]; ok || known[name] {
		return name
	}
	return "other"
}

var known = func() map[string]bool {
	names := map[string]bool{}
	for _, p := range event.Contracts() {
		names[p.EventName()] = true
	}
	return names
}()

// withCause returns a context in which new events have e as their cause.
func withCause(ctx context.Context, e event.Event) context.Context {
	if e.TraceParent != "" {
		ctx = propagation.TraceContext{}.Extract(ctx, propagation.MapCarrier{"traceparent": e.TraceParent})
	}
	correlation := e.CorrelationID
	if correlation == "" {
		correlation = e.ID
	}
	return event.WithOrigin(ctx, event.Origin{
		Actor:         event.Actor{Type: "service"},
		RequestID:     e.RequestID,
		CorrelationID: correlation,
		CausationID:   e.ID,
		TraceParent:   e.TraceParent,
	})
}
