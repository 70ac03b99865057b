package bus_test

import (
	"context"
	"errors"
	"log/slog"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/headgate/headgate/pkg/bus"
	"github.com/headgate/headgate/pkg/testkit"
)

// leases are messages that are due, with leases that expire.
type leases struct {
	t        *testing.T
	duration time.Duration

	mu        sync.Mutex
	until     map[string]time.Time
	inFlight  int
	most      int
	delivered map[string]int
}

func (l *leases) take(_ context.Context, _ string, limit int) ([]*message.Message, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	var taken []*message.Message
	for id, until := range l.until {
		if len(taken) < limit && !until.After(time.Now()) {
			l.until[id] = time.Now().Add(l.duration)
			taken = append(taken, message.NewMessage(id, nil))
		}
	}
	l.inFlight += len(taken)
	l.most = max(l.most, l.inFlight)
	return taken, nil
}

func (l *leases) renew(_ context.Context, m *message.Message) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.until[m.UUID].Before(time.Now()) {
		l.t.Errorf("the lease of %s expired", m.UUID)
	}
	l.until[m.UUID] = time.Now().Add(l.duration)
	return nil
}

func (l *leases) complete(_ context.Context, m *message.Message) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.inFlight--
	delete(l.until, m.UUID)
	return nil
}

func (l *leases) release(_ context.Context, m *message.Message) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.inFlight--
	l.until[m.UUID] = time.Time{}
	return nil
}

// TestPollerLimit: a poller leases no more messages than may be in flight, however many
// are due, and no lease expires however long a handler takes. Each message is delivered
// once.
func TestPollerLimit(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const due, limit = 100, 8
		l := &leases{t: t, duration: 5 * time.Minute, until: map[string]time.Time{}, delivered: map[string]int{}}
		for i := range due {
			l.until[strconv.Itoa(i)] = time.Time{}
		}
		p := bus.NewPoller(bus.PollerConfig{
			Take: l.take, Renew: l.renew, Complete: l.complete, Release: l.release, Limit: limit, Log: testkit.Log(t),
		})
		messages, err := p.Subscribe(t.Context(), "topic")
		if err != nil {
			t.Fatal(err)
		}
		var handlers sync.WaitGroup
		for range due {
			m := <-messages
			l.delivered[m.UUID]++
			handlers.Go(func() {
				time.Sleep(20 * time.Minute) // In the bubble, this takes no time.
				m.Ack()
			})
		}
		handlers.Wait()
		if err := p.Close(); err != nil {
			t.Error(err)
		}
		if l.most > limit || len(l.until) != 0 || len(l.delivered) != due {
			t.Errorf("%d messages in flight, want at most %d; %d are left; %d of %d were delivered", l.most, limit, len(l.until), len(l.delivered), due)
		}
	})
}

// TestPollerOutage is REL-75: while the table of a poller is unavailable, the log has one
// line at the beginning, one a minute, and one at the end.
func TestPollerOutage(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		log := &testkit.Buffer{}
		began := time.Now()
		p := bus.NewPoller(bus.PollerConfig{
			Take: func(context.Context, string, int) ([]*message.Message, error) {
				if time.Since(began) < 150*time.Second {
					return nil, errors.New("disk full")
				}
				return nil, nil
			},
			Log: slog.New(slog.NewTextHandler(log, nil)),
		})
		if _, err := p.Subscribe(t.Context(), "topic"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(5 * time.Minute)
		if n := log.Count("could not be taken"); n != 3 || log.Count("can be taken again") != 1 || log.Count("level=") != 4 {
			t.Errorf("log = %s, want three lines and one at the end", log.String())
		}
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
}
