package bus

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
)

// errStopped says that the consumer stopped before it acknowledged the message.
var errStopped = errors.New("consumer stopped")

const (
	firstProbe   = 500 * time.Millisecond
	longestProbe = 10 * time.Second
)

// circuitBreaker pauses the consumer while a dependency is unavailable, for as
// long as that takes. Paused messages consume no attempts. They keep their places
// in the window, so reading stops by itself, and unread entries wait in Redis.
//
// A message has failed by itself if, for IsolatedFailureTimeout, it finds a
// dependency unavailable at every try while other messages succeed. The timeout
// is long because a success proves little: that message may have needed no
// dependency.
func (c *Consumer) circuitBreaker(stop context.Context) message.HandlerMiddleware {
	return func(next message.HandlerFunc) message.HandlerFunc {
		return func(m *message.Message) ([]*message.Message, error) {
			var call call
			var isolatedSince time.Time
			for delay := firstProbe; ; {
				if !c.breaker.acquire(stop, &call) {
					return nil, errStopped
				}
				out, err := next(m)
				if err == nil || !c.cfg.Unavailable(err) {
					if paused := c.breaker.succeed(); paused > 0 {
						c.cfg.Log.InfoContext(stop, "circuit breaker closed", "topic", string(c.cfg.Topic), "paused_ms", paused.Milliseconds())
					}
					return out, err
				}
				c.handled.WithLabelValues(string(c.cfg.Topic), c.label(decodedOf(m).event.Name), "paused").Inc()
				result := c.breaker.fail(&call)
				c.logUnavailable(m, result, err) //nolint:contextcheck // The message has a context of its own, as all of Watermill's have.
				if result != othersSucceed {
					isolatedSince, delay = time.Time{}, firstProbe
					continue
				}
				if isolatedSince.IsZero() {
					isolatedSince = time.Now()
				}
				if time.Since(isolatedSince) > c.cfg.IsolatedFailureTimeout {
					c.recordAttempt(m, "message", err)
					return out, err
				}
				if !wait(stop, delay) {
					return nil, errStopped
				}
				delay = min(2*delay, longestProbe)
			}
		}
	}
}

// logUnavailable warns once of an outage and of each failed probe, not once for
// each message in flight.
func (c *Consumer) logUnavailable(m *message.Message, result failResult, err error) {
	ctx := m.Context()
	attributes := []any{"event", decodedOf(m).event.Name, "event_id", m.UUID, "topic", string(c.cfg.Topic), "error", err.Error()}
	switch result {
	case breakerOpened:
		c.cfg.Log.WarnContext(ctx, "circuit breaker opened", attributes...)
	case probeFailed:
		c.cfg.Log.WarnContext(ctx, "circuit breaker probe failed", attributes...)
	case othersSucceed:
		c.cfg.Log.WarnContext(ctx, "event paused: dependency unavailable", attributes...)
	case alreadyOpen:
		c.cfg.Log.DebugContext(ctx, "event paused: dependency unavailable", attributes...)
	}
}

// breakerState is what a circuit breaker does with calls.
type breakerState int

const (
	closed   breakerState = iota // calls pass
	open                         // calls wait until the next probe is due
	halfOpen                     // one call probes, the others wait for its result
)

// breaker is the circuit breaker of a consumer. Its methods may be called
// concurrently.
type breaker struct {
	mu        sync.Mutex
	state     breakerState
	closing   chan struct{} // closed when the breaker closes; nil while it is closed
	openedAt  time.Time
	delay     time.Duration // between two probes
	nextProbe time.Time
	probe     *call // whose result decides; nil unless half-open
	successes int64 // of all calls
}

// call is one message's way through the breaker, over all its tries. The zero
// value is a call that has not been tried yet.
type call struct {
	failed    bool
	successes int64 // of all calls, when this one failed last or else began
}

// failResult says what a failed call has changed, or why it has changed nothing.
type failResult int

const (
	breakerOpened failResult = iota
	probeFailed
	alreadyOpen
	othersSucceed // other calls have succeeded since this one failed last or began
)

// acquire waits until the breaker is closed or it is the call's turn to probe.
// It returns false if stop ended first.
func (b *breaker) acquire(stop context.Context, c *call) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	for stop.Err() == nil {
		probe := b.state == open && !time.Now().Before(b.nextProbe)
		if b.state == closed || probe {
			if probe {
				b.state, b.probe = halfOpen, c
			}
			if !c.failed {
				c.successes = b.successes
			}
			return true
		}
		closing, delay := b.closing, max(time.Until(b.nextProbe), firstProbe/10)
		b.mu.Unlock()
		timer := time.NewTimer(delay)
		select {
		case <-stop.Done():
		case <-closing:
		case <-timer.C:
		}
		timer.Stop()
		b.mu.Lock()
	}
	return false
}

// succeed closes the breaker. It returns how long the consumer was paused, 0 if
// the breaker was closed.
func (b *breaker) succeed() (paused time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.successes++
	if b.state == closed {
		return 0
	}
	b.state, b.probe = closed, nil
	close(b.closing)
	b.closing = nil
	return time.Since(b.openedAt)
}

// fail opens the breaker, unless other calls have succeeded since this one failed
// last or began.
func (b *breaker) fail(c *call) failResult {
	b.mu.Lock()
	defer b.mu.Unlock()
	probe := b.probe == c
	if probe {
		b.state, b.probe = open, nil
	}
	others := b.successes > c.successes
	c.failed, c.successes = true, b.successes
	if others {
		return othersSucceed
	}
	result := alreadyOpen
	switch {
	case b.state == closed:
		result = breakerOpened
		b.state, b.closing = open, make(chan struct{})
		b.delay, b.openedAt = firstProbe, time.Now()
	case probe:
		result = probeFailed
		b.delay = min(2*b.delay, longestProbe)
	}
	b.nextProbe = time.Now().Add(b.delay)
	return result
}

// paused is 1 while the breaker is open or half-open, else 0.
func (b *breaker) paused() float64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.state == closed {
		return 0
	}
	return 1
}
