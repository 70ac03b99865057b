package bus

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
)

// maintain updates the stream's metrics, trims the stream and removes idle
// consumers.
func (s *subscription) maintain(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, EventTimeout)
	defer cancel()
	err := errors.Join(s.trim(ctx), s.removeIdleConsumers(ctx))
	if err != nil && !lostGroup(err) && ctx.Err() == nil {
		s.cfg.Log.WarnContext(ctx, "stream maintenance failed", "topic", s.topic, "error", err.Error())
	}
}

// trim removes entries that every group has acknowledged and that are older than
// Retain. It also sets the metrics of the own group, which it has to read anyway.
func (s *subscription) trim(ctx context.Context) error {
	groups, err := groupsOf(ctx, s.cfg.Client, s.topic)
	if err != nil {
		return err
	}
	if own, ok := groups[s.cfg.Group]; ok {
		s.metrics.lag.With(s.labels).Set(float64(own.lag))
		s.metrics.pending.With(s.labels).Set(float64(own.pending))
	}
	for _, name := range append(s.cfg.Groups, s.cfg.Group) {
		if _, ok := groups[name]; !ok {
			return nil // The group has not started to read and needs every entry.
		}
	}
	oldest := entryAt(time.Now().Add(-s.cfg.Retain))
	for _, g := range groups {
		oldest = slices.MinFunc([]entryID{oldest, g.acknowledged}, entryID.compare)
	}
	n, err := s.cfg.Client.XTrimMinIDApprox(ctx, s.topic, oldest.String(), 0).Result()
	if err != nil {
		return fmt.Errorf("trim %s: %w", s.topic, err)
	}
	s.metrics.trimmed.With(s.labels).Add(float64(n))
	return nil
}
