package bus

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
)

// Poller is a message.Subscriber for messages that wait in a table: dead letters
// to be replayed, work to be done later. It feeds them to a consumer beside those
// of the stream, so the same circuit breaker, retries and dead letters apply.
type Poller struct {
	cfg     PollerConfig
	closing chan struct{}
	once    sync.Once
	running sync.WaitGroup
}

// PollerConfig says where the messages are. All functions may be called
// concurrently, also by several instances.
type PollerConfig struct {
	// Take leases messages of a topic that are due, for longer than it takes to handle
	// them.
	Take func(ctx context.Context, topic string) ([]*message.Message, error)
	// Complete ends the lease of a message that was acknowledged.
	Complete func(ctx context.Context, m *message.Message) error
	// Release ends the lease of any other message: it is due again at once.
	Release func(ctx context.Context, m *message.Message) error

	Every time.Duration // 1 s if zero
	Log   *slog.Logger
}

var _ message.Subscriber = (*Poller)(nil)

// NewPoller returns a poller.
func NewPoller(cfg PollerConfig) *Poller {
	if cfg.Every == 0 {
		cfg.Every = time.Second
	}
	return &Poller{cfg: cfg, closing: make(chan struct{})}
}

// Subscribe implements message.Subscriber.
func (p *Poller) Subscribe(ctx context.Context, topic string) (<-chan *message.Message, error) {
	out := make(chan *message.Message)
	stop, cancel := context.WithCancel(ctx)
	p.running.Go(func() {
		defer cancel()
		select {
		case <-p.closing:
		case <-stop.Done():
		}
	})
	p.running.Go(func() {
		defer cancel()
		defer close(out)
		var deliveries sync.WaitGroup
		every(stop, p.cfg.Every, func() { p.poll(stop, topic, out, &deliveries) })
		deliveries.Wait()
	})
	return out, nil
}

// Close implements message.Subscriber: it waits for the messages in flight.
func (p *Poller) Close() error {
	p.once.Do(func() { close(p.closing) })
	p.running.Wait()
	return nil
}

func (p *Poller) poll(stop context.Context, topic string, out chan<- *message.Message, deliveries *sync.WaitGroup) {
	due, err := p.cfg.Take(stop, topic)
	if err != nil {
		if stop.Err() == nil {
			p.cfg.Log.WarnContext(stop, "due messages could not be taken; retrying", "topic", topic, "error", err.Error())
		}
		return
	}
	work := context.WithoutCancel(stop)
	for _, m := range due {
		deliveries.Go(func() {
			endLease := p.cfg.Release
			if p.deliver(stop, work, m, out) {
				endLease = p.cfg.Complete
			}
			if err := endLease(work, m); err != nil {
				p.cfg.Log.WarnContext(work, "lease of a message could not be ended; it will be redelivered", "topic", topic, "message", m.UUID, "error", err.Error())
			}
		})
	}
}

// deliver reports whether the message was acknowledged.
func (p *Poller) deliver(stop, work context.Context, m *message.Message, out chan<- *message.Message) bool {
	m.SetContext(work)
	select {
	case <-stop.Done():
		return false
	case out <- m:
	}
	select {
	case <-m.Nacked():
		return false
	case <-m.Acked():
		return true
	}
}
