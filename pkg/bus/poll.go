package bus

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/headgate/headgate/pkg/service"
)

// Poller is a message.Subscriber for messages that wait in a table: dead letters
// to be replayed, work to be done later. It feeds them to a consumer beside those
// of the stream, so the same circuit breaker, retries and dead letters apply.
//
// It leases only as many messages as it may have in flight, so a long list delays
// neither the stream nor other instances, and it renews the leases of messages that
// take long, for example because the consumer is paused. A message that waits for its
// next attempt leaves its place to the next one that is due.
type Poller struct {
	cfg     PollerConfig
	closing chan struct{}
	once    sync.Once
	running sync.WaitGroup
}

// PollerConfig says where the messages are. All functions may be called
// concurrently, also by several instances.
type PollerConfig struct {
	// Take leases messages of a topic that are due, at most limit, each for at least
	// three times RenewEvery. The contexts of the messages do not end with ctx.
	Take func(ctx context.Context, topic string, limit int) ([]*message.Message, error)
	// Renew makes the lease of a message last as long again.
	Renew func(ctx context.Context, m *message.Message) error
	// Complete ends the lease of a message that was acknowledged.
	Complete func(ctx context.Context, m *message.Message) error
	// Release ends the lease of any other message: it is due again at once.
	Release func(ctx context.Context, m *message.Message) error

	Limit    int // messages in flight that do not wait for their next attempt; 16 if zero
	WaitList int // messages in flight that wait for their next attempt; 256 if zero
	// Reported reports whether another part of the service logs an error of Take; none is
	// if it is nil.
	Reported func(error) bool

	Every      time.Duration // 1 s if zero
	RenewEvery time.Duration // 1 minute if zero
	Log        *slog.Logger
}

var _ message.Subscriber = (*Poller)(nil)

// NewPoller returns a poller.
func NewPoller(cfg PollerConfig) *Poller {
	if cfg.Limit == 0 {
		cfg.Limit = 16
	}
	if cfg.WaitList == 0 {
		cfg.WaitList = 256
	}
	if cfg.Every == 0 {
		cfg.Every = time.Second
	}
	if cfg.RenewEvery == 0 {
		cfg.RenewEvery = time.Minute
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
		p.poll(stop, topic, out)
	})
	return out, nil
}

// Close implements message.Subscriber: it waits for the messages in flight.
func (p *Poller) Close() error {
	p.once.Do(func() { close(p.closing) })
	p.running.Wait()
	return nil
}

// poll delivers the messages that are due until stop ends. Then it waits for the
// messages in flight.
func (p *Poller) poll(stop context.Context, topic string, out chan<- *message.Message) {
	var deliveries sync.WaitGroup
	defer deliveries.Wait()
	free := newSlots(p.cfg.Limit)
	length := prometheus.NewGauge(prometheus.GaugeOpts{}) // It is not exported: the table shows what waits.
	waiting := newWaitList(p.cfg.WaitList, p.cfg.Limit, waitWhenFull, length)
	outage := service.NewOutage(service.OutageConfig{
		Log: p.cfg.Log.With("topic", topic), Failing: "due messages could not be taken; retrying", Over: "due messages can be taken again",
		Reported: p.cfg.Reported,
	})
	for {
		n := free.reserve(stop, p.cfg.Limit)
		if n == 0 {
			return
		}
		due, err := p.cfg.Take(stop, topic, n)
		if stop.Err() == nil {
			outage.Record(stop, "", err)
		}
		free.release(n - len(due))
		for _, m := range due {
			place := &slot{list: waiting, from: free}
			//nolint:contextcheck // It is the message's own.
			m.SetContext(context.WithValue(context.WithValue(m.Context(), slotKey{}, place), storedKey{}, true))
			deliveries.Go(func() {
				defer place.release()
				p.handle(stop, topic, m, out)
			})
		}
		if len(due) < n && !wait(stop, p.cfg.Every) {
			return
		}
	}
}

// handle delivers a message and ends its lease.
func (p *Poller) handle(stop context.Context, topic string, m *message.Message, out chan<- *message.Message) {
	work := context.WithoutCancel(stop)
	endLease := p.cfg.Release
	if p.deliver(stop, m, out) {
		endLease = p.cfg.Complete
	}
	if err := endLease(work, m); err != nil {
		p.cfg.Log.WarnContext(work, "lease of a message could not be ended; it will be redelivered", "topic", topic, "message", m.UUID, "error", err.Error())
	}
}

// deliver reports whether the message was acknowledged.
func (p *Poller) deliver(stop context.Context, m *message.Message, out chan<- *message.Message) bool {
	renewal := time.NewTicker(p.cfg.RenewEvery)
	defer renewal.Stop()
	waiting := stop.Done() // until a handler has the message
	for {
		select {
		case <-waiting:
			return false
		case out <- m:
			waiting, out = nil, nil
		case <-m.Nacked():
			return false
		case <-m.Acked():
			return true
		case <-renewal.C:
			if err := p.cfg.Renew(context.WithoutCancel(stop), m); err != nil {
				p.cfg.Log.WarnContext(stop, "lease of a message could not be renewed", "message", m.UUID, "error", err.Error())
			}
		}
	}
}
