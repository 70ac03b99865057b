package bus_test

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/pkg/testkit"
)

// TestOutage is REL-12 on a small scale: a dependency is unavailable for longer
// than three attempts take. No event becomes a dead letter, no message probes, and all
// messages are handled once the dependency is back.
func TestOutage(t *testing.T) {
	t.Parallel()
	f := newFixture(t, testkit.Redis(t))
	var tries atomic.Int64
	f.unavailable.Store(true)
	f.consume("a", func(ctx context.Context, e event.Event) error {
		tries.Add(1)
		if err := f.probe(ctx); err != nil {
			return fmt.Errorf("insert: %w", err)
		}
		return f.count(ctx, e)
	})
	var messages []*message.Message
	for range 200 { // more than the window
		messages = append(messages, newMessage(t, event.UserLoggedIn{}))
	}
	f.publish(messages...)
	outage := time.NewTimer(6 * time.Second)
	<-outage.C
	// All messages in flight fail together; then only the probe is tried.
	if n := tries.Load(); n > 64 {
		t.Errorf("%d tries during the outage", n)
	}
	f.wantDeadLetters(0)
	f.wantPaused(1)
	f.unavailable.Store(false)
	f.wantSeen(messages...)
	f.wantNothingPending()
	f.wantDeadLetters(0)
	f.wantPaused(0)
}

// TestIsolatedFailure: a failure that affects a single message is not treated as
// an outage.
func TestIsolatedFailure(t *testing.T) {
	t.Parallel()
	f := newFixture(t, testkit.Redis(t))
	bad := newMessage(t, event.UserLoggedIn{})
	f.consume("a", func(ctx context.Context, e event.Event) error {
		if e.ID == bad.UUID {
			return errUnavailable
		}
		return f.count(ctx, e)
	})
	f.publish(bad)
	traffic := time.NewTicker(20 * time.Millisecond)
	defer traffic.Stop()
	testkit.Eventually(t, func() error {
		<-traffic.C
		f.publish(newMessage(t, event.UserLoggedIn{}))
		f.mu.Lock()
		defer f.mu.Unlock()
		if f.consumed[bad.UUID] == 0 {
			return errors.New("the bad message still waits")
		}
		return nil
	})
	if deadLetter := f.wantDeadLetters(1)[0]; *deadLetter.EventID != bad.UUID || deadLetter.Class != "message" {
		t.Errorf("dead letter = %+v", deadLetter)
	}
}

// TestStopDuringAnOutage: a stop releases paused messages at once, and this does
// not count as a delivery.
func TestStopDuringAnOutage(t *testing.T) {
	t.Parallel()
	f := newFixture(t, testkit.Redis(t))
	f.unavailable.Store(true)
	m := newMessage(t, event.UserLoggedIn{})
	f.publish(m)
	for i := range 10 { // more often than a crash loop may be
		tried := make(chan struct{}, 100)
		consumer := f.consume(fmt.Sprint("consumer-", i), func(context.Context, event.Event) error {
			tried <- struct{}{}
			return errUnavailable
		})
		<-tried
		consumer.Stop()
	}
	f.wantDeadLetters(0)
	f.unavailable.Store(false)
	f.consume("last", nil)
	f.wantSeen(m)
	f.wantDeadLetters(0)
	f.wantNothingPending()
}

// TestConsumed: Consumed is called once for every acknowledged event: handled,
// ignored or a dead letter.
func TestConsumed(t *testing.T) {
	t.Parallel()
	f := newFixture(t, testkit.Redis(t))
	bad := newMessage(t, event.UserLoggedIn{})
	f.consume("a", func(_ context.Context, e event.Event) error {
		if e.ID == bad.UUID {
			return event.ErrMalformed
		}
		return nil
	})
	messages := []*message.Message{bad, newMessage(t, event.UserLoggedIn{}), newMessage(t, event.UserLoggedOut{})}
	f.publish(messages...)
	f.wantNothingPending()
	testkit.Eventually(t, func() error {
		f.mu.Lock()
		defer f.mu.Unlock()
		for _, m := range messages {
			if f.consumed[m.UUID] != 1 {
				return fmt.Errorf("message %s was recorded %d times", m.UUID, f.consumed[m.UUID])
			}
		}
		return nil
	})
}
