package bus

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/ThreeDotsLabs/watermill/message/router/middleware"
	"github.com/cenkalti/backoff/v5"
	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/propagation"

	"github.com/headgate/headgate/pkg/event"
)

// Handler acts on an event. It may be called again for an event that it has
// handled, also at the same time, and must act once: by the event's id, in the
// transaction of its effect.
type Handler func(ctx context.Context, e event.Event) error

// Permanent marks an error that no retry can mend: the event becomes a dead
// letter at once.
func Permanent(err error) error { return backoff.Permanent(err) }

// ConsumerConfig says what a consumer reads and what it does with it.
type ConsumerConfig struct {
	Topic       event.Topic
	Subscriber  message.Subscriber
	Handlers    map[string]Handler // by event name
	Rest        Handler            // for all other names; they are acknowledged and counted if it is nil
	DeadLetters message.Publisher  // must not need Redis
	Timeout     time.Duration      // for one attempt; 10 s if zero
	Log         *slog.Logger
	Metrics     prometheus.Registerer
}

// Consumer runs handlers for a stream: three attempts, one and two seconds
// apart, then the dead letters. A message that waits for its next attempt does
// not hold up the others.
type Consumer struct {
	cfg     ConsumerConfig
	handled *prometheus.CounterVec
	seconds *prometheus.HistogramVec
}

const (
	maxRetries       = 2 // that is three attempts
	firstRetry       = time.Second
	longestRetry     = 10 * time.Second
	attemptTimeout   = 10 * time.Second
	routerPatience   = 25 * time.Second
	deadLettersTopic = "dead_letters"
)

// Metadata of a message that failed, for the dead letters.
const (
	AttemptsKey = "headgate_attempts" // JSON list of Attempt
	ClassKey    = "headgate_class"    // permanent or message
)

// Attempt is one failed attempt.
type Attempt struct {
	At    time.Time `json:"at"`
	Error string    `json:"error"`
}

// NewConsumer returns a consumer of one topic.
func NewConsumer(cfg ConsumerConfig) *Consumer {
	if cfg.Timeout == 0 {
		cfg.Timeout = attemptTimeout
	}
	c := &Consumer{
		cfg: cfg,
		handled: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "headgate_events_total", Help: "Deliveries of events by their end: handled, ignored, failed (one attempt) or dead.",
		}, []string{"topic", "name", "result"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "headgate_event_duration_seconds", Help: "Time of one attempt to handle an event.",
			Buckets: prometheus.ExponentialBuckets(0.0005, 2, 15),
		}, []string{"topic", "name"}),
	}
	cfg.Metrics.MustRegister(c.handled, c.seconds)
	return c
}

// Run implements service.Runner. It reads until ctx ends, then lets the
// handlers under way finish and acknowledges what they did.
func (c *Consumer) Run(ctx context.Context) error {
	logger := watermill.NewSlogLoggerWithLevelMapping(c.cfg.Log, map[slog.Level]slog.Level{
		slog.LevelInfo: slog.LevelDebug,
	})
	router, err := message.NewRouter(message.RouterConfig{CloseTimeout: routerPatience}, logger)
	if err != nil {
		return fmt.Errorf("make router: %w", err)
	}
	poison, err := middleware.PoisonQueue(c.cfg.DeadLetters, deadLettersTopic)
	if err != nil {
		return fmt.Errorf("make router: %w", err)
	}
	// Outermost first. Both intervals and the multiplier must be set, else the
	// pauses are constant; two retries are three attempts.
	router.AddMiddleware(
		poison,
		middleware.Retry{
			MaxRetries:          maxRetries,
			InitialInterval:     firstRetry,
			MaxInterval:         longestRetry,
			Multiplier:          2,
			RandomizationFactor: 0.1,
		}.Middleware,
		c.attempt,
		middleware.Recoverer,
	)
	router.AddConsumerHandler(string(c.cfg.Topic), string(c.cfg.Topic), c.cfg.Subscriber, c.handle)

	stopped := make(chan error, 1)
	go func() { stopped <- router.Run(context.WithoutCancel(ctx)) }()
	select {
	case err := <-stopped:
		return errors.Join(errors.New("router ended by itself"), err)
	case <-ctx.Done():
	}
	err = router.Close()
	return errors.Join(err, <-stopped)
}

// attempt notes how one attempt went, for the dead letter that may come.
func (c *Consumer) attempt(next message.HandlerFunc) message.HandlerFunc {
	return func(m *message.Message) ([]*message.Message, error) {
		out, err := next(m)
		if err == nil {
			return out, nil
		}
		class := "message"
		if _, permanent := errors.AsType[*backoff.PermanentError](err); permanent {
			class = "permanent"
		}
		attempts := append(Attempts(m), Attempt{At: time.Now().UTC(), Error: err.Error()})
		encoded, _ := json.Marshal(attempts) // Times and texts always encode.
		m.Metadata.Set(AttemptsKey, string(encoded))
		m.Metadata.Set(ClassKey, class)
		result := "failed"
		if class == "permanent" || len(attempts) > maxRetries {
			result = "dead"
		}
		c.handled.WithLabelValues(string(c.cfg.Topic), c.label(m.Metadata.Get("name")), result).Inc()
		c.cfg.Log.WarnContext(m.Context(), "event not handled", "event", m.Metadata.Get("name"), "event_id", m.UUID,
			"topic", string(c.cfg.Topic), "attempt", len(attempts), "result", result, "error", err.Error())
		return out, err
	}
}

// Attempts returns the failed attempts that m carries.
func Attempts(m *message.Message) []Attempt {
	var attempts []Attempt
	if text := m.Metadata.Get(AttemptsKey); text != "" {
		if err := json.Unmarshal([]byte(text), &attempts); err != nil {
			return nil // A publisher's own metadata of that name is none of ours.
		}
	}
	return attempts
}

// handle is one attempt at one message.
func (c *Consumer) handle(m *message.Message) error {
	if fault := m.Metadata.Get(MalformedKey); fault != "" {
		return Permanent(fmt.Errorf("%w: %s", event.ErrMalformed, fault))
	}
	e, err := event.Parse(m.Payload)
	if err != nil {
		return Permanent(err)
	}
	if e.ID != m.UUID {
		return Permanent(fmt.Errorf("%w: message %s carries event %s", event.ErrMalformed, m.UUID, e.ID))
	}
	ctx, cancel := context.WithTimeout(withCause(m.Context(), e), c.cfg.Timeout)
	defer cancel()

	handler, ok := c.cfg.Handlers[e.Name]
	if !ok {
		handler = c.cfg.Rest
	}
	if handler == nil {
		c.handled.WithLabelValues(string(c.cfg.Topic), "other", "ignored").Inc()
		return nil
	}
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
	c.cfg.Log.InfoContext(ctx, "event handled", "event", e.Name, "event_id", e.ID, "topic", string(c.cfg.Topic),
		"duration_ms", float64(took.Microseconds())/1000,
		"lag_ms", time.Since(e.OccurredAt).Milliseconds())
	return nil
}

// label keeps names that a stranger could make up out of the metrics.
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

// withCause returns a context in which new events follow from e.
func withCause(ctx context.Context, e event.Event) context.Context {
	ctx = propagation.TraceContext{}.Extract(ctx, propagation.MapCarrier{"traceparent": e.TraceParent})
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
