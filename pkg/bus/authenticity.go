package bus

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"

	"github.com/headgate/headgate/pkg/event"
)

// Metadata with which a publisher signs a message.
const (
	NameKey      = "name" // of the event
	KeyIDKey     = "headgate_key"
	SignatureKey = "headgate_signature"
)

// RefusedKey is metadata of a message whose event is not its producer's. Its dead letter
// proves nothing about the event that it claims to be.
const RefusedKey = "headgate_refused"

// Authenticity checks that events were published by their producers. It counts what it
// refuses, and logs that once a minute. It is safe for concurrent use. Nil checks nothing.
type Authenticity struct {
	keys           event.PublicKeys
	acceptUnsigned bool
	log            *slog.Logger
	results        *prometheus.CounterVec

	mu     sync.Mutex
	logged map[[2]string]*refusals // by topic and result
}

// refusals are those that were not logged yet.
type refusals struct {
	count int
	last  time.Time // when some were logged
}

const refusalsLoggedEvery = time.Minute

// NewAuthenticity returns a check with keys, whose configuration is cfg.
func NewAuthenticity(cfg PublicKeys, keys event.PublicKeys, log *slog.Logger, reg prometheus.Registerer) *Authenticity {
	a := &Authenticity{
		keys: keys, acceptUnsigned: cfg.AcceptUnsigned(), log: log, logged: map[[2]string]*refusals{},
		results: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "headgate_event_signatures_total", Help: "Events read, by what the check of their signature found: valid, accepted_unsigned (EVENT_SIGNATURES=accept-unsigned), unsigned, forged, or wrong_producer (it may not publish such events). The last three are refused.",
		}, []string{"topic", "result"}),
	}
	reg.MustRegister(a.results)
	if a.acceptUnsigned {
		log.Warn("events without a signature are accepted: set EVENT_SIGNATURES to require when the release before signatures is gone")
	}
	return a
}

// check returns an error of event.PublicKeys.Check if the event e in the message was not
// published by its producer.
func (a *Authenticity) check(ctx context.Context, topic event.Topic, m *message.Message, e event.Event) error {
	if a == nil {
		return nil
	}
	err := a.keys.Check(topic, e, m.Payload, event.Signature{KeyID: m.Metadata.Get(KeyIDKey), Value: m.Metadata.Get(SignatureKey)})
	result := "valid"
	switch {
	case err == nil:
	case errors.Is(err, event.ErrUnsigned) && a.acceptUnsigned:
		result, err = "accepted_unsigned", nil
	case errors.Is(err, event.ErrUnsigned):
		result = "unsigned"
	case errors.Is(err, event.ErrWrongProducer):
		result = "wrong_producer"
	default:
		result = "forged"
	}
	a.results.WithLabelValues(string(topic), result).Inc()
	if err != nil {
		a.report(ctx, topic, result, err)
	}
	return err
}

// report logs a refusal, unless one like it was logged less than a minute ago.
func (a *Authenticity) report(ctx context.Context, topic event.Topic, result string, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	key := [2]string{string(topic), result}
	r := a.logged[key]
	if r == nil {
		r = &refusals{}
		a.logged[key] = r
	}
	r.count++
	if !r.last.IsZero() && time.Since(r.last) < refusalsLoggedEvery {
		return
	}
	a.log.ErrorContext(ctx, "events refused: not published by their producers", "topic", string(topic), "reason", result, "count", r.count, "last_error", err.Error())
	r.count, r.last = 0, time.Now()
}

// eventIn returns the event in a stream entry; ok is false if there is none that a consumer
// would handle.
func (a *Authenticity) eventIn(ctx context.Context, topic string, entry redis.XMessage) (e event.Event, ok bool) {
	m, err := unmarshal(entry.Values)
	if err != nil {
		return event.Event{}, false
	}
	if e, err = event.Parse(m.Payload); err != nil || a.check(ctx, event.Topic(topic), m, e) != nil {
		return event.Event{}, false
	}
	return e, true
}
