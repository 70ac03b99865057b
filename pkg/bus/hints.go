package bus

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"

	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/pkg/service"
)

// Hints publishes hints on event.Realtime. A caller never waits: a hint that Redis does not
// take at once, or for which the queue has no room, is dropped and counted. So hints are for
// what a reader also learns in another, slower way. Run must be running. It is safe for
// concurrent use.
type Hints struct {
	cfg       HintsConfig
	publisher *Publisher
	queue     chan event.Event
	results   *prometheus.CounterVec
	outage    *service.Outage

	mu     sync.Mutex
	counts map[string]*occurrences // by the name of the event
}

// HintsConfig is what NewHints needs.
type HintsConfig struct {
	Client   redis.UniversalClient // with EventTimeout
	Producer string
	Signer   *event.Signer // of the producer
	Log      *slog.Logger
	Metrics  prometheus.Registerer
}

// occurrences are those that one hint will stand for.
type occurrences struct {
	hint  event.Countable
	count int
	since time.Time
}

const (
	// hintsKept is about how many entries the stream keeps. An entry takes half a kilobyte.
	hintsKept = 20_000
	hintQueue = 1024
	hintBatch = 100
	// countEvery is how long occurrences are counted before one hint says so.
	countEvery = time.Second
)

// NewHints returns hints of a producer, which signs them as its other events.
func NewHints(cfg HintsConfig) *Hints {
	publisher := NewSigningPublisher(cfg.Client, cfg.Signer)
	publisher.limit = hintsKept
	h := &Hints{
		cfg: cfg, publisher: publisher, queue: make(chan event.Event, hintQueue), counts: map[string]*occurrences{},
		results: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "headgate_hints_total", Help: "Hints for browsers, by result: published, or dropped because Redis was unavailable or too slow.",
		}, []string{"result"}),
		outage: service.NewOutage(service.OutageConfig{
			Log: cfg.Log, Failing: "hints could not be published; dropping them", Over: "hints are published again", Reported: redisUnavailable,
		}),
	}
	cfg.Metrics.MustRegister(h.results)
	return h
}

// Send publishes a hint about subject, which may be empty. The hint does not say from which
// address or with which program the cause came, as other events do.
func (h *Hints) Send(ctx context.Context, at time.Time, subject string, p event.Payload) {
	e := event.New(ctx, at, subject, p)
	e.IP, e.UserAgent = "", ""
	select {
	case h.queue <- e:
	default:
		h.results.WithLabelValues("dropped").Inc()
	}
}

// Count counts n occurrences. Within a second, one hint says how many there were.
func (h *Hints) Count(hint event.Countable, n int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	t := h.counts[hint.EventName()]
	if t == nil {
		t = &occurrences{hint: hint, since: time.Now()}
		h.counts[hint.EventName()] = t
	}
	t.count += n
}

// Run implements service.Runner: it publishes hints until ctx ends, and then the last ones.
func (h *Hints) Run(ctx context.Context) error {
	tick := time.NewTicker(countEvery)
	defer tick.Stop()
	for {
		select {
		case e := <-h.queue:
			h.publish(ctx, h.more(e))
		case <-tick.C:
			h.publish(ctx, h.counted(ctx))
		case <-ctx.Done():
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), countEvery)
			defer cancel()
			h.publish(last, append(h.more(), h.counted(last)...))
			return nil
		}
	}
}

// more returns hints and further ones from the queue, up to hintBatch.
func (h *Hints) more(hints ...event.Event) []event.Event {
	for len(hints) < hintBatch {
		select {
		case e := <-h.queue:
			hints = append(hints, e)
		default:
			return hints
		}
	}
	return hints
}

func (h *Hints) counted(ctx context.Context) []event.Event {
	h.mu.Lock()
	defer h.mu.Unlock()
	var hints []event.Event
	for _, t := range h.counts {
		hints = append(hints, event.New(ctx, time.Now(), "", t.hint.Counted(t.count, t.since)))
	}
	clear(h.counts)
	return hints
}

func (h *Hints) publish(ctx context.Context, hints []event.Event) {
	if len(hints) == 0 {
		return
	}
	messages := make([]*message.Message, len(hints))
	for i, e := range hints {
		e.ID, e.Producer = uuid.Must(uuid.NewV7()).String(), h.cfg.Producer
		data, err := json.Marshal(e)
		if err != nil {
			panic(fmt.Sprintf("encode %s: %v", e.Name, err)) // A payload always encodes; see event.New.
		}
		messages[i] = message.NewMessage(e.ID, data)
		messages[i].Metadata.Set(NameKey, e.Name)
		messages[i].SetContext(ctx)
	}
	err := h.publisher.Publish(string(event.Realtime), messages...) //nolint:contextcheck // The messages have it.
	h.outage.Record(ctx, "", err)
	result := "published"
	if err != nil {
		result = "dropped"
	}
	h.results.WithLabelValues(result).Add(float64(len(hints)))
}
