package bus

import (
	"context"
	"errors"
	"sync"
	"time"
)

// errStopped says that the consumer stopped before it acknowledged the message.
var errStopped = errors.New("consumer stopped")

const (
	firstProbe   = 500 * time.Millisecond
	longestProbe = 10 * time.Second
)

// breaker is the circuit breaker of a consumer. It pauses the consumer while a
// dependency is unavailable, for as long as that takes. Paused messages consume no
// attempts. They keep their slots in the window, so reading stops by itself, and
// unread entries wait in Redis.
//
// The dependency's own probe decides, not a message: a message may fail for reasons
// of its own, and handling one to find out could act twice. Its methods may be
// called concurrently.
type breaker struct {
	probe  func(context.Context) error // must return after a while
	opened chan struct{}               // tells probeUntilClosed that the breaker has opened

	mu       sync.Mutex
	closing  chan struct{} // closed when the breaker closes; nil while it is closed
	openedAt time.Time
	fault    error  // of the last probe
	check    *check // in progress, shared by the messages that failed meanwhile
}

// check is one run of the probe.
type check struct {
	done chan struct{}
	err  error
}

func newBreaker(probe func(context.Context) error) *breaker {
	return &breaker{probe: probe, opened: make(chan struct{}, 1)}
}

// pass waits until the breaker is closed. It returns false if stop ended first.
func (b *breaker) pass(stop context.Context) bool {
	for stop.Err() == nil {
		b.mu.Lock()
		closing := b.closing
		b.mu.Unlock()
		if closing == nil {
			return true
		}
		select {
		case <-stop.Done():
		case <-closing:
		}
	}
	return false
}

// fail returns the error of the probe, nil if the dependency is available. opened
// says that the breaker opened with this call.
func (b *breaker) fail(ctx context.Context) (opened bool, err error) {
	b.mu.Lock()
	if b.closing != nil {
		defer b.mu.Unlock()
		return false, errUnavailable
	}
	shared := b.check
	if shared != nil {
		b.mu.Unlock()
		<-shared.done // The probe has a timeout.
		return false, shared.err
	}
	own := &check{done: make(chan struct{})}
	b.check = own
	b.mu.Unlock()

	err = b.probe(ctx)

	b.mu.Lock()
	defer b.mu.Unlock()
	own.err, b.check = err, nil
	close(own.done)
	if err == nil {
		return false, nil
	}
	b.closing, b.openedAt, b.fault = make(chan struct{}), time.Now(), err
	b.opened <- struct{}{}
	return true, err
}

// errUnavailable says that the breaker is open.
var errUnavailable = errors.New("dependency is unavailable")

// probeUntilClosed probes from each opening of the breaker until the probe succeeds, then
// closes the breaker. It returns when ctx ends. report gets the result of each
// probe, and how long the breaker has been open.
func (b *breaker) probeUntilClosed(ctx context.Context, report func(open time.Duration, err error)) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-b.opened:
		}
		for delay := firstProbe; ; delay = min(2*delay, longestProbe) {
			if !wait(ctx, delay) {
				return
			}
			err := b.probe(ctx)
			if ctx.Err() != nil {
				return
			}
			b.mu.Lock()
			b.fault = err
			b.mu.Unlock()
			report(b.openFor(), err)
			if err == nil {
				b.close()
				break
			}
		}
	}
}

func (b *breaker) close() {
	b.mu.Lock()
	defer b.mu.Unlock()
	close(b.closing)
	b.closing = nil
}

// openFor returns how long the breaker has been open, 0 while it is closed.
func (b *breaker) openFor() time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closing == nil {
		return 0
	}
	return time.Since(b.openedAt)
}

// lastFault returns the error of the last probe, nil if that succeeded.
func (b *breaker) lastFault() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.fault
}

// paused is 1 while the breaker is open, else 0.
func (b *breaker) paused() float64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closing == nil {
		return 0
	}
	return 1
}
