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
	oldest, kept := entryAt(now.Add(-retain)), entryAt(now.Add(-min(s.cfg.Retain, followerLookback)))
	for _, name := range append(s.cfg.Groups, s.cfg.Group) {
		g, ok := groups[name]
		if !ok {
			return nil // The group has not started to read and needs every entry.
		}
		oldest = slices.MinFunc([]entryID{oldest, g.acknowledged}, entryID.compare)
		kept = slices.MinFunc([]entryID{kept, g.acknowledged}, entryID.compare)
	}
	if err := s.lookForTrimByOthers(ctx, entryAt(now), kept); err != nil {
		return err
	}
	n, err := s.cfg.Client.XTrimMinIDApprox(ctx, s.topic, oldest.String(), 0).Result()
	if err != nil {
		return fmt.Errorf("trim %s: %w", s.topic, err)
	}
	s.metrics.trimmed.With(s.labels).Add(float64(n))
	return nil
}

// streamEnd is the end of a stream at one maintenance.
type streamEnd struct {
	at    entryID // Entries that are added later have this id or a later one.
	last  entryID
	added int64 // entries since the stream was created
}

// lookForTrimByOthers reports that somebody else has removed entries which trim keeps: those
// after kept. Redis cannot let a producer add entries and keep it from trimming, because both
// are XADD. No event is lost by that: a consumer that lacks it requests it again.
func (s *subscription) lookForTrimByOthers(ctx context.Context, now, kept entryID) error {
	info, err := s.cfg.Client.XInfoStream(ctx, s.topic).Result()
	if err != nil {
		return fmt.Errorf("inspect %s: %w", s.topic, err)
	}
	before := s.seen
	s.seen = &streamEnd{at: now, last: parseEntryID(info.LastGeneratedID), added: info.EntriesAdded}
	if before == nil || s.seen.last.compare(before.last) < 0 { // Then Redis has lost its data.
		return nil
	}
	if info.Length > 0 && parseEntryID(info.FirstEntry.ID).compare(before.last) <= 0 {
		return nil
	}
	// The last entry of before is gone, and so may be some that were added since.
	unread := before.at.compare(kept) > 0 && info.Length < s.seen.added-before.added
	if before.last.compare(kept) <= 0 && !unread {
		return nil
	}
	s.metrics.trimmedByOthers.With(s.labels).Inc()
	s.cfg.Log.ErrorContext(ctx, "stream trimmed by someone else; lost events will be published again", "topic", s.topic, "first_entry_left", info.FirstEntry.ID)
	return nil
}
