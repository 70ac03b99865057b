package bus

import (
	"context"
	"strconv"
	"sync"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/redis/go-redis/v9"
)

// suspicious is after how many deliveries without an answer an entry is handled
// alone: whatever kills its consumers should not take its neighbours' good name
// with it.
const suspicious = 3

// track returns the entries that were not in flight before.
func (s *subscription) track(entries []redis.XMessage) []redis.XMessage {
	s.mu.Lock()
	defer s.mu.Unlock()
	fresh := entries[:0]
	for _, entry := range entries {
		if _, ok := s.inFlight[entry.ID]; !ok {
			s.inFlight[entry.ID] = struct{}{}
			fresh = append(fresh, entry)
		}
	}
	return fresh
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

// sent is an entry in the hands of a handler.
type sent struct {
	entry  redis.XMessage
	m      *message.Message
	cancel context.CancelFunc
}

// patience is how long a batch waits for a handler to take the next entry before
// it looks after those that it has sent.
const patience = time.Millisecond

// deliver hands entries that nobody had before to handlers. Handlers that are
// fast have answered the first ones when the last one is sent; only what they
// have not gets a goroutine to wait for the answer.
func (s *subscription) deliver(stop, work context.Context, entries []redis.XMessage, from slots, running *sync.WaitGroup) {
	out := make([]sent, 0, len(entries))
	look := time.NewTimer(patience)
	defer look.Stop()
	for _, entry := range entries {
		one := s.open(work, entry, 0)
		select {
		case s.out <- one.m:
			out = append(out, one)
			continue
		default:
		}
		look.Reset(patience)
		select {
		case s.out <- one.m:
			out = append(out, one)
			continue
		case <-stop.Done():
		case <-look.C:
			s.look(stop, work, out, from, running)
			out = out[:0]
			if s.send(stop, one) {
				out = append(out, one)
				continue
			}
		}
		one.cancel()
		from.release(1)
	}
	s.look(stop, work, out, from, running)
}

// look acknowledges the entries that were answered, and leaves each other to a
// goroutine.
func (s *subscription) look(stop, work context.Context, out []sent, from slots, running *sync.WaitGroup) {
	acked := make([]string, 0, len(out))
	for _, one := range out {
		select {
		case <-one.m.Acked():
			one.cancel()
			acked = append(acked, one.entry.ID)
		default:
			running.Go(func() {
				defer from.release(1)
				if s.await(work, one) {
					s.acks <- []string{one.entry.ID}
					return
				}
				if work.Err() == nil && wait(stop, s.cfg.NackPause) {
					s.insist(stop, work, one.entry, 0)
				}
			})
		}
	}
	if len(acked) > 0 {
		s.acks <- acked
		from.release(len(acked))
	}
}

// insist hands one entry to the handler until it is acknowledged. When stop ends
// before a handler has it, or work before it is answered, the entry is left
// pending for handBack.
func (s *subscription) insist(stop, work context.Context, entry redis.XMessage, times int64) {
	if times > suspicious {
		if s.alone.reserve(stop, 1) == 0 {
			return
		}
		defer s.alone.release(1)
	}
	for pause := s.cfg.NackPause; ; pause = min(2*pause, longestNack) {
		one := s.open(work, entry, times)
		if s.send(stop, one) && s.await(work, one) {
			s.acks <- []string{entry.ID}
			return
		}
		one.cancel()
		if work.Err() != nil || !wait(stop, pause) {
			return
		}
	}
}

func (s *subscription) open(work context.Context, entry redis.XMessage, times int64) sent {
	m := decodeEntry(s.topic, entry)
	if times > s.cfg.MaxDeliveries {
		m.Metadata.Set(CrashLoopKey, strconv.FormatInt(times, 10))
	}
	ctx, cancel := context.WithCancel(work)
	m.SetContext(ctx)
	return sent{entry, m, cancel}
}

// send reports whether a handler has taken the entry before stop ended.
func (s *subscription) send(stop context.Context, one sent) bool {
	select {
	case <-stop.Done():
		return false
	case s.out <- one.m:
		return true
	}
}

// await reports whether the entry was acknowledged.
func (s *subscription) await(work context.Context, one sent) bool {
	defer one.cancel()
	select {
	case <-one.m.Acked():
		return true
	case <-one.m.Nacked():
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
	var gone []string
	there := entries[:0]
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
