package backend

import (
	"context"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/headgate/headgate/pkg/bus"
	"github.com/headgate/headgate/pkg/deadletter"
	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/pkg/outbox"
	"github.com/headgate/headgate/pkg/postgres"
	"github.com/headgate/headgate/pkg/reconcile"
	"github.com/headgate/headgate/pkg/service"
)

// ConsumerConfig says which stream a service consumes and what it does with the
// events. Fields that are not described here are those of bus.ConsumerConfig and
// bus.SubscriberConfig.
type ConsumerConfig struct {
	Topic       event.Topic
	Handlers    map[string]bus.Handler
	Rest        bus.Handler
	DeadLetters *deadletter.Store
	Due         []bus.PollerConfig                                         // besides the replays of DeadLetters; Limit and Reported are set
	Records     *reconcile.Records                                         // nil for a service whose own tables are its records
	Restored    func(ctx context.Context, handled reconcile.Handled) error // of reconcile.ConsumerConfig
	Unavailable func(error) bool
	Probe       func(context.Context) error // of the dependencies besides Postgres; may be nil
	Window      int                         // 64 if zero
	Timeout     time.Duration

	DeadLetterRetention time.Duration // of closed ones
}

// databaseProbeTimeout is how long the database may take to commit a small change.
const databaseProbeTimeout = 5 * time.Second

// Consumer returns the runners of a consumer: one handles the events of the stream
// and replays dead letters, one is the consumer's side of reconciliation, and one
// purges closed dead letters. If the database was restored, pending replays are canceled.
// From then on, /readyz of the internal listener says whether the consumer works.
func (b *Backend) Consumer(cfg ConsumerConfig) []service.Runner {
	if cfg.Window == 0 {
		cfg.Window = bus.DefaultWindow
	}
	stream := bus.NewSubscriber(bus.SubscriberConfig{
		Client: b.Redis, Group: b.Name, Consumer: b.cfg.Instance(), Groups: cfg.Topic.Groups(),
		Window: cfg.Window, Retain: b.cfg.StreamRetention, MaxBytes: b.cfg.StreamMaxBytes,
		Log: b.Log, Metrics: b.Metrics,
	})
	b.Metrics.MustRegister(cfg.DeadLetters.Gauge())
	b.Notice("database", func(ctx context.Context) string { return reconcile.Notice(ctx, b.DB, cfg.Topic) })

	var due []message.Subscriber
	for _, source := range append([]bus.PollerConfig{cfg.DeadLetters.ReplaysIf(reconcile.CheckedSQL(cfg.Topic), b.Log)}, cfg.Due...) {
		source.Limit, source.Reported = max(1, cfg.Window/4), postgres.Disconnected
		due = append(due, bus.NewPoller(source))
	}
	var consumed func(context.Context, event.Event) error
	var retention time.Duration
	if cfg.Records != nil {
		consumed, retention = cfg.Records.Record, reconcile.RecordRetention
	}
	consumer := bus.NewConsumer(bus.ConsumerConfig{
		Topic:        cfg.Topic,
		Subscriber:   stream,
		Authenticity: b.authenticity,
		Due:          due,
		Handlers:     b.erasing(cfg),
		Rest:         cfg.Rest,
		DeadLetters:  hintedDeadLetters{cfg.DeadLetters, b.Hints},
		Unavailable:  cfg.Unavailable,
		Probe:        b.probe(cfg.Probe),
		Contended:    postgres.Contended,
		Consumed:     consumed,
		Timeout:      cfg.Timeout,
		Log:          b.Log,
		Metrics:      b.Metrics,
	})
	b.CheckWork("consumer", func(ctx context.Context) error {
		if err := consumer.Healthy(ctx); err != nil {
			return err
		}
		return stream.Healthy(ctx)
	})
	return []service.Runner{
		consumer,
		reconcile.NewConsumer(reconcile.ConsumerConfig{
			Database: b.DB, Redis: b.Redis, Topic: cfg.Topic, Group: b.Name, Producers: cfg.Topic.Producers(), Authenticity: b.authenticity,
			Interval: b.cfg.ReconcileInterval, Retention: retention, Restored: b.restored(cfg), Log: b.Log, Metrics: b.Metrics,
		}),
		deadletter.NewPurge(deadletter.PurgeConfig{
			Store: cfg.DeadLetters, Retention: cfg.DeadLetterRetention, AreRecords: cfg.Records == nil, Log: b.Log,
		}),
	}
}

// hintedDeadLetters tells browsers of administrators that dead letters were added.
type hintedDeadLetters struct {
	message.Publisher

	hints *bus.Hints
}

// Publish implements message.Publisher.
func (d hintedDeadLetters) Publish(topic string, messages ...*message.Message) error {
	err := d.Publisher.Publish(topic, messages...)
	if err == nil {
		d.hints.Count(event.DeadLetterAdded{}, len(messages))
	}
	return err
}

// erasing returns the handlers of cfg. After that of event.UserDeleted, the dead letters and
// the outbox of the service are erased as well. An erased event is not handled: its user is
// gone, and what the handler needs may be, too.
func (b *Backend) erasing(cfg ConsumerConfig) map[string]bus.Handler {
	handlers := map[string]bus.Handler{}
	for name, handle := range cfg.Handlers {
		handlers[name] = func(ctx context.Context, e event.Event) error {
			if e.Erased {
				return nil
			}
			return handle(ctx, e)
		}
	}
	deleted := event.UserDeleted{}.EventName()
	erase := cfg.Handlers[deleted]
	if erase == nil {
		erase = cfg.Rest
	}
	handlers[deleted] = func(ctx context.Context, e event.Event) error {
		if erase != nil {
			if err := erase(ctx, e); err != nil {
				return err
			}
		}
		if err := outbox.RequestErasure(ctx, b.DB, e.Subject); err != nil {
			return err
		}
		return cfg.DeadLetters.Erase(ctx, e.Subject)
	}
	return handlers
}

// restored returns what is done when the database turns out to be an older copy.
func (b *Backend) restored(cfg ConsumerConfig) func(context.Context, reconcile.Handled) error {
	return func(ctx context.Context, handled reconcile.Handled) error {
		canceled, err := cfg.DeadLetters.CancelReplays(ctx)
		if err != nil {
			return err
		}
		if canceled > 0 {
			b.Log.WarnContext(ctx, "replays canceled; the database was restored and may have completed them before", "count", canceled)
		}
		if cfg.Restored == nil {
			return nil
		}
		return cfg.Restored(ctx, handled)
	}
}

// probe returns the probe of the database and, if it is not nil, other.
func (b *Backend) probe(other func(context.Context) error) func(context.Context) error {
	database := postgres.Probe(b.DB)
	return func(ctx context.Context) error {
		limited, cancel := context.WithTimeout(ctx, databaseProbeTimeout)
		defer cancel()
		if err := database(limited); err != nil || other == nil {
			return err
		}
		return other(ctx)
	}
}
