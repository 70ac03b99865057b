package bus

import (
	"context"
	"errors"
	"fmt"
	"slices"
)

// maintain trims the stream and removes idle consumers.
func (s *subscription) maintain(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, EventTimeout)
	defer cancel()
	err := errors.Join(s.trim(ctx), s.removeIdleConsumers(ctx))
	if ctx.Err() == nil && !lostGroup(err) {
		s.outage.Record(ctx, "maintain", err)
	}
}

// trim removes entries that every configured group has acknowledged and that are
// older than Retain by the clock of Redis. Other groups do not count: one that nobody uses any more would
// keep every entry for ever.
//
// A stream that is larger than MaxBytes keeps acknowledged entries only for as long as
// followers look back. Entries that a configured group has not acknowledged stay, so
// trimming never loses an event. If the stream does not shrink, Redis refuses new
// entries when it is full, and the outboxes keep the events.
func (s *subscription) trim(ctx context.Context) error {
	groups, err := groupsOf(ctx, s.cfg.Client, s.topic)
	if err != nil {
		return err
	}
	if len(groups) == 0 {
		return nil
	}
	retain := s.cfg.Retain
	if s.cfg.MaxBytes > 0 {
		bytes, err := s.cfg.Client.MemoryUsage(ctx, s.topic).Result()
		if err != nil {
			return fmt.Errorf("measure %s: %w", s.topic, err)
		}
		if bytes > s.cfg.MaxBytes {
			retain = min(retain, followerLookback)
		}
	}
	now, err := timeAt(ctx, s.cfg.Client, s.topic)
	if err != nil {
		return err
	}
	oldest := entryAt(now.Add(-retain))
	for _, name := range append(s.cfg.Groups, s.cfg.Group) {
		g, ok := groups[name]
		if !ok {
			return nil // The group has not started to read and needs every entry.
		}
		oldest = slices.MinFunc([]entryID{oldest, g.acknowledged}, entryID.compare)
	}
	n, err := s.cfg.Client.XTrimMinIDApprox(ctx, s.topic, oldest.String(), 0).Result()
	if err != nil {
		return fmt.Errorf("trim %s: %w", s.topic, err)
	}
	s.metrics.trimmed.With(s.labels).Add(float64(n))
	return nil
}
