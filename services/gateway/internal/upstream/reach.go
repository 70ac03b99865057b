package upstream

import (
	"context"
	"errors"
	"slices"
	"time"
)

const (
	// reconnectEvery is the pause between two attempts to connect.
	reconnectEvery = 50 * time.Millisecond
	// reconnectTimeout bounds the first attempt. Each further one may take twice as long as the
	// one before, up to dialTimeout: while a container is replaced, its name may resolve slowly,
	// or to an address that does not respond.
	reconnectTimeout = 250 * time.Millisecond
)

// unreachableError says that an address accepts no connections. Nothing was sent.
type unreachableError struct{ error }

func (e unreachableError) Unwrap() error { return e.error }

func unreachable(err error) bool {
	_, ok := errors.AsType[unreachableError](err)
	return ok
}

var errUnreachable = unreachableError{errors.New("address accepts no connections")}

// lose marks the address as unreachable. Until Run has connected to it, requests use only the
// connections that are open.
func (a *address) lose(ctx context.Context, err error) {
	if a.lost.CompareAndSwap(nil, new(time.Now())) {
		a.reachable.Set(0)
		a.log.WarnContext(ctx, "service unreachable", "error", err.Error())
		a.check()
	}
}

// check makes Run connect to the address.
func (a *address) check() {
	select {
	case a.doubted <- struct{}{}:
	default:
	}
}

// find marks the address as reachable. Its circuit breaker has counted the failures of another
// process, so the address gets a new one.
func (a *address) find(ctx context.Context) {
	since := a.lost.Load()
	if since == nil {
		return
	}
	a.renewBreaker()
	a.lost.Store(nil)
	a.reachable.Set(1)
	a.found()
	a.log.InfoContext(ctx, "service reachable", "after", time.Since(*since).Round(time.Millisecond).String())
}

// reconnect connects to the address until it accepts a connection, which is kept for the next
// request, or ctx ends.
func (a *address) reconnect(ctx context.Context) {
	for timeout := reconnectTimeout; ; timeout = min(2*timeout, dialTimeout) {
		c, err := a.dial(ctx, timeout)
		if ctx.Err() != nil && err != nil {
			return
		}
		if !unreachable(err) {
			if err == nil {
				a.keep(c)
			}
			a.find(ctx)
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(reconnectEvery):
		}
		a.lose(ctx, err)
	}
}

// await waits for an address that accepts connections. It reports whether to send the request
// again: not if the service has been unreachable for Options.Wait, or if until has passed. A
// waiting request counts as in flight, so the same limits apply. Closing found ends the wait.
func (s *Service) await(ctx context.Context, found <-chan struct{}, until time.Time, from Client) (bool, error) {
	a := slices.MaxFunc(s.addresses, func(a, b *address) int { return a.lostAt().Compare(b.lostAt()) })
	if since := a.lostAt(); !since.IsZero() && since.Add(s.o.Wait).Before(until) {
		until = since.Add(s.o.Wait)
	}
	left := time.Until(until)
	if left <= 0 {
		return false, nil
	}
	if err := a.begin(s.o.MaxInFlight, from); err != nil {
		return false, err
	}
	defer a.end(from)
	s.waiting.Inc()
	defer s.waiting.Dec()
	timer := time.NewTimer(left)
	defer timer.Stop()
	select {
	case <-found:
		return true, nil
	case <-ctx.Done():
		return false, ctx.Err()
	case <-timer.C:
		return false, nil
	}
}

// lostAt returns since when the address is unreachable, or zero if it is not.
func (a *address) lostAt() time.Time {
	if since := a.lost.Load(); since != nil {
		return *since
	}
	return time.Time{}
}

// nextFound returns a channel that is closed when an unreachable address is reachable again.
func (s *Service) nextFound() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.found
}

// announce ends the wait of all requests.
func (s *Service) announce() {
	s.mu.Lock()
	defer s.mu.Unlock()
	close(s.found)
	s.found = make(chan struct{})
}
