package bus

import (
	"context"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"
)

// suspicious is after how many deliveries without an answer an entry is handled
// alone: whatever kills its consumers should not take its neighbours' good name
// with it.
const suspicious = 3

// track reports whether entry id was not in flight before.
func (s *subscription) track(id string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.inFlight[id]; ok {
		return false
	}
	s.inFlight[id] = struct{}{}
	return true
}

func (s *subscription) untrack(ids ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, id := range ids {
		delete(s.inFlight, id)
	}
}

func (s *subscription) pending() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	ids := make([]string, 0, len(s.inFlight))
	for id := range s.inFlight {
		ids = append(ids, id)
	}
	return ids
}

// deliver hands one entry to the handler until it is acknowledged. When stop
// ends before a handler has it, or work before it is answered, the entry is left
// pending for handBack.
func (s *subscription) deliver(stop, work context.Context, entry redis.XMessage, times int64) {
	if times > suspicious {
		if s.alone.reserve(stop) == 0 {
			return
		}
		defer s.alone.release(1)
	}
	for pause := s.cfg.NackPause; ; pause = min(2*pause, longestNack) {
		if acked := s.attempt(stop, work, entry, times); acked {
			s.acks <- entry.ID
			return
		}
		if work.Err() != nil || !wait(stop, pause) {
			return
		}
	}
}

// attempt delivers the entry once and reports whether it was acknowledged.
func (s *subscription) attempt(stop, work context.Context, entry redis.XMessage, times int64) (acked bool) {
	m := decode(s.topic, entry)
	if times > s.cfg.MaxDeliveries {
		m.Metadata.Set(CrashLoopKey, strconv.FormatInt(times, 10))
	}
	ctx, cancel := context.WithCancel(work)
	defer cancel()
	m.SetContext(ctx)
	select {
	case <-stop.Done():
		return false
	case s.out <- m:
	}
	select {
	case <-m.Acked():
		return true
	case <-m.Nacked():
		return false
	case <-work.Done():
		return false
	}
}

// deliveries returns how often each of the entries, which this consumer holds,
// was delivered, this time included. Without an answer of Redis all count as new.
func (s *subscription) deliveries(ctx context.Context, entries []redis.XMessage) map[string]int64 {
	times := make(map[string]int64, len(entries))
	pending, err := s.cfg.Client.XPendingExt(ctx, &redis.XPendingExtArgs{
		Stream: s.topic, Group: s.cfg.Group, Consumer: s.cfg.Consumer,
		Start: entries[0].ID, End: entries[len(entries)-1].ID, Count: int64(len(entries) + s.cfg.Window),
	}).Result()
	if err != nil {
		s.cfg.Log.WarnContext(ctx, "deliveries not counted", "topic", s.topic, "error", err.Error())
		return times
	}
	for _, p := range pending {
		times[p.ID] = p.RetryCount
	}
	return times
}

// present returns the entries that still have content. The others were deleted
// from the stream while they were pending; they are acknowledged, for nobody can
// ever handle them.
func (s *subscription) present(ctx context.Context, entries []redis.XMessage) []redis.XMessage {
	there := entries[:0:0]
	var gone []string
	for _, entry := range entries {
		if entry.Values == nil {
			gone = append(gone, entry.ID)
			continue
		}
		there = append(there, entry)
	}
	s.lost(ctx, gone)
	if len(gone) > 0 {
		if err := s.cfg.Client.XAck(ctx, s.topic, s.cfg.Group, gone...).Err(); err != nil {
			s.cfg.Log.WarnContext(ctx, "deleted entries not acknowledged", "topic", s.topic, "error", err.Error())
		}
	}
	return there
}

func (s *subscription) absent(entries []redis.XMessage) (n int) {
	for _, entry := range entries {
		if entry.Values == nil {
			n++
		}
	}
	return n
}

// lost tells of entries that were deleted before this group had handled them.
// The producers' outboxes still have the events.
func (s *subscription) lost(ctx context.Context, ids []string) {
	if len(ids) == 0 {
		return
	}
	s.metrics.lost.With(s.lookup).Add(float64(len(ids)))
	s.cfg.Log.ErrorContext(ctx, "entries were deleted before they were handled", "topic", s.topic, "count", len(ids), "first", ids[0])
}

// every calls f at each interval until ctx ends.
func every(ctx context.Context, interval time.Duration, f func()) {
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			f()
		}
	}
}
