package bus

import (
	"context"
	"errors"
	"fmt"
	"time"
)

const (
	// pausedTooLong is how long a consumer may be paused. A dependency that restarts is
	// back sooner.
	pausedTooLong = time.Minute
	// jammedAfter is how long all slots in the window may be taken without one event
	// being finished: longer than three attempts of a handler that times out.
	jammedAfter = time.Minute
	// idleFactor is how many times longer that is while slots are free: longer than the
	// longest attempt, at a mail server that is slow.
	idleFactor = 5
	// waitingEvents is how many events on the wait list are a jam if nothing else is
	// handled. Fewer may be the events of one locked row.
	waitingEvents = 10
)

// Healthy returns an error when the consumer has been paused for long, unless Redis is the
// reason: then requests are served, a notice says what waits, and nothing in this service
// can be repaired.
func (c *Consumer) Healthy(context.Context) error {
	open, fault := c.breaker.openFor(), c.breaker.lastFault()
	if open < pausedTooLong || errors.Is(fault, ErrUnavailable) {
		return nil
	}
	return fmt.Errorf("paused for %s, because a dependency is unavailable; events wait and are handled when it is back: %w",
		open.Round(time.Second), fault)
}

// Healthy returns an error when the consumer's name is in use by another process, when
// reads have failed for long although Redis is available, or when events wait and none is
// finished, unless acknowledgements fail because Redis is unavailable.
func (s *Subscriber) Healthy(context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for topic, owner := range s.owners {
		if d := owner.usurped(); d > 0 {
			return fmt.Errorf("consumer name %s of group %s on %s has been in use by another process for %s: set a different INSTANCE_ID in each instance",
				s.cfg.Consumer, s.cfg.Group, topic, d.Round(time.Second))
		}
	}
	for _, sub := range s.subscriptions {
		if err := sub.unreadable(); err != nil {
			return err
		}
		if err := sub.jammed(); err != nil {
			return err
		}
	}
	return nil
}

// failure says since when reads have failed for one kind of reason, and why the last one
// did.
type failure struct {
	since time.Time
	err   error
}

// readFailed records that a read failed. Redis may be unavailable at first and refuse the
// reads later; then the time begins again.
func (s *subscription) readFailed(err error) {
	f := &failure{time.Now(), err}
	if last := s.failing.Load(); last != nil && redisUnavailable(last.err) == redisUnavailable(err) {
		f.since = last.since
	}
	s.failing.Store(f)
}

// unreadable returns an error when reads have failed for long although Redis is available.
func (s *subscription) unreadable() error {
	f := s.failing.Load()
	if f == nil || redisUnavailable(f.err) || time.Since(f.since) <= s.cfg.UnreadableAfter {
		return nil
	}
	return fmt.Errorf("stream reads have failed for %s: %w", time.Since(f.since).Round(time.Second), f.err)
}

// jammed returns an error when events are in flight and none is finished.
func (s *subscription) jammed() error {
	if s.unacknowledged.Load() {
		return nil // The events were handled.
	}
	waiting := s.cfg.WaitList - len(s.waiting.places)
	if waiting == s.cfg.WaitList {
		return fmt.Errorf("the wait list is full: %d events of %s wait for their next attempt; see the log for \"event delayed\" and \"event handler failed\"", waiting, s.topic)
	}
	s.mu.Lock()
	handling, idle := len(s.inFlight)-waiting, time.Since(s.progress)
	s.mu.Unlock()
	limit := s.cfg.JammedAfter
	if handling < s.cfg.Window {
		limit *= idleFactor
	}
	if idle < limit || handling <= 0 && waiting < waitingEvents {
		return nil
	}
	return fmt.Errorf("no event of %s was finished for %s, although %d are being handled and %d wait for their next attempt; see the log for \"event delayed\" and \"event handler failed\"",
		s.topic, idle.Round(time.Second), max(0, handling), waiting)
}
