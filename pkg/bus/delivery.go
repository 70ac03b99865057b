package bus

import (
	"context"
	"strconv"
	"sync"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/redis/go-redis/v9"
)

// quarantineAfter is the number of deliveries without an acknowledgement after
// which an entry is in quarantine: if it is what kills its consumers, the entries
// beside it should not be suspected as well.
const quarantineAfter = 3

// track puts the entries in flight and returns those that were not before.
func (s *subscription) track(entries []redis.XMessage) []redis.XMessage {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.inFlight) == 0 {
		s.progress = time.Now()
	}
	added := entries[:0]
	for _, entry := range entries {
		if _, ok := s.inFlight[entry.ID]; !ok {
			s.inFlight[entry.ID] = struct{}{}
			added = append(added, entry)
		}
	}
	return added
}

// untrack takes the entries out of flight.
func (s *subscription) untrack(ids ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.progress = time.Now()
	for _, id := range ids {
		delete(s.inFlight, id)
	}
}

func (s *subscription) inFlightIDs() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	ids := make([]string, 0, len(s.inFlight))
	for id := range s.inFlight {
		ids = append(ids, id)
	}
	return ids
}

// delivery is one delivery of an entry to a handler, and the context of its
// message.
type delivery struct {
	context.Context //nolint:containedctx // It is the context of the message, which adds the slot.

	entry   redis.XMessage
	message *message.Message
	cancel  context.CancelFunc
	slot    *slot
}

// Value implements context.Context.
func (d *delivery) Value(key any) any {
	if key == (slotKey{}) {
		return d.slot
	}
	return d.Context.Value(key)
}

// newDelivery makes the message for an entry that was delivered count times. Its
// context ends with work, or with the delivery.
func (s *subscription) newDelivery(work context.Context, place *slot, entry redis.XMessage, count int64) *delivery {
	m := decodeEntry(s.topic, entry)
	if count > s.cfg.MaxDeliveries {
		m.Metadata.Set(CrashLoopKey, strconv.FormatInt(count, 10))
	}
	d := &delivery{entry: entry, message: m, slot: place}
	d.Context, d.cancel = context.WithCancel(work)
	m.SetContext(d) //nolint:contextcheck // It is work, with the slot.
	return d
}

// handoffTimeout is how long a batch waits for a handler to take the next entry
// before it collects the acknowledgements of the entries that it has sent.
const handoffTimeout = time.Millisecond

// deliver hands entries that were never delivered before to handlers. Fast
// handlers have acknowledged the first entries when the last one is sent; only
// the others need a goroutine that waits for the acknowledgement.
func (s *subscription) deliver(stop, work context.Context, entries []redis.XMessage, from slots, running *sync.WaitGroup) {
	sent := make([]*delivery, 0, len(entries))
	collect := time.NewTimer(handoffTimeout)
	defer collect.Stop()
	for _, entry := range entries {
		d := s.newDelivery(work, s.newSlot(from), entry, 0)
		select {
		case s.out <- d.message:
			sent = append(sent, d)
			continue
		default:
		}
		collect.Reset(handoffTimeout)
		select {
		case s.out <- d.message:
			sent = append(sent, d)
			continue
		case <-stop.Done():
		case <-collect.C:
			s.collectAcks(stop, work, sent, running)
			sent = sent[:0]
			if s.send(stop, d) {
				sent = append(sent, d)
				continue
			}
		}
		d.cancel()
		d.slot.release()
	}
	s.collectAcks(stop, work, sent, running)
}

// collectAcks acknowledges the entries whose handlers have finished, and starts a
// goroutine for each of the others.
func (s *subscription) collectAcks(stop, work context.Context, sent []*delivery, running *sync.WaitGroup) {
	finished, acked := sent[:0], make([]string, 0, len(sent))
	for _, d := range sent {
		select {
		case <-d.message.Acked():
			d.cancel()
			finished, acked = append(finished, d), append(acked, d.entry.ID)
		default:
			running.Go(func() {
				defer d.slot.release()
				if s.await(work, d) {
					s.acks <- []string{d.entry.ID}
					return
				}
				s.redeliver(stop, work, d, 0)
			})
		}
	}
	if len(acked) > 0 {
		s.acks <- acked
	}
	for _, d := range finished {
		d.slot.release()
	}
}

// deliverAgain delivers an entry that was delivered count times already.
func (s *subscription) deliverAgain(stop, work context.Context, entry redis.XMessage, place *slot, count int64) {
	defer place.release()
	if count > quarantineAfter {
		if s.quarantine.reserve(stop, 1) == 0 {
			return
		}
		place.quarantine = s.quarantine
	}
	d := s.newDelivery(work, place, entry, count)
	if !s.send(stop, d) {
		d.cancel()
		return
	}
	if s.await(work, d) {
		s.acks <- []string{entry.ID}
		return
	}
	s.redeliver(stop, work, d, count)
}

// redeliver delivers the entry of d, which got a negative acknowledgement, until it
// is acknowledged. If stop ends before a handler takes it, or work before the
// handler has finished, the entry stays in flight for releaseInFlight. An entry for
// which the wait list has no room is left pending in Redis.
func (s *subscription) redeliver(stop, work context.Context, d *delivery, count int64) {
	for delay := s.cfg.NackBackoff; work.Err() == nil && !d.slot.isLeft(); delay = min(2*delay, longestNackBackoff) {
		listed := d.slot.yield()
		if !d.slot.rest(stop, delay, classMessage) {
			return
		}
		if !listed {
			break
		}
		d = s.newDelivery(work, d.slot, d.entry, count)
		if s.send(stop, d) && s.await(work, d) {
			s.acks <- []string{d.entry.ID}
			return
		}
		d.cancel()
	}
	if work.Err() == nil && stop.Err() == nil {
		s.leavePending(work, d.entry.ID)
	}
}

// leavePending takes an entry out of flight and leaves it pending in Redis, where a
// consumer claims it after MaxIdle. It resets the delivery count: no consumer has
// died of the entry.
func (s *subscription) leavePending(ctx context.Context, id string) {
	defer s.untrack(id)
	err := s.cfg.Client.Do(ctx, "XCLAIM", s.topic, s.cfg.Group, s.cfg.Consumer, 0, id, "RETRYCOUNT", 0, "JUSTID").Err()
	if err != nil && ctx.Err() == nil {
		s.cfg.Log.Log(ctx, retryLevel(err), "delivery count could not be reset", "topic", s.topic, "entry", id, "error", err.Error())
	}
}

// send reports whether a handler has taken the message before stop ended.
func (s *subscription) send(stop context.Context, d *delivery) bool {
	select {
	case <-stop.Done():
		return false
	case s.out <- d.message:
		return true
	}
}

// await reports whether the message was acknowledged before work ended.
func (s *subscription) await(work context.Context, d *delivery) bool {
	defer d.cancel()
	select {
	case <-d.message.Acked():
		return true
	case <-d.message.Nacked():
		return false
	case <-work.Done():
		return false
	}
}

// deliveryCounts returns how often each of the entries, which this consumer has in
// flight, was delivered, this time included. If Redis cannot be asked, all count as
// new.
func (s *subscription) deliveryCounts(ctx context.Context, entries []redis.XMessage) map[string]int64 {
	counts := make(map[string]int64, len(entries))
	pending, err := s.cfg.Client.XPendingExt(ctx, &redis.XPendingExtArgs{
		Stream: s.topic, Group: s.cfg.Group, Consumer: s.cfg.Consumer,
		Start: entries[0].ID, End: entries[len(entries)-1].ID, Count: int64(len(entries) + s.cfg.Window),
	}).Result()
	if err != nil {
		s.cfg.Log.Log(ctx, retryLevel(err), "delivery counts read failed", "topic", s.topic, "error", err.Error())
		return counts
	}
	for _, p := range pending {
		counts[p.ID] = p.RetryCount
	}
	return counts
}

// withoutDeleted returns the entries that still have content. The others were
// deleted from the stream while they were pending. It acknowledges them in Redis,
// because no consumer can ever handle them.
func (s *subscription) withoutDeleted(ctx context.Context, entries []redis.XMessage) []redis.XMessage {
	var deleted []string
	existing := entries[:0]
	for _, entry := range entries {
		if entry.Values == nil {
			deleted = append(deleted, entry.ID)
			continue
		}
		existing = append(existing, entry)
	}
	s.reportLost(ctx, deleted)
	if len(deleted) > 0 {
		if err := s.cfg.Client.XAck(ctx, s.topic, s.cfg.Group, deleted...).Err(); err != nil {
			s.cfg.Log.Log(ctx, retryLevel(err), "deleted entries could not be acknowledged", "topic", s.topic, "count", len(deleted), "error", err.Error())
		}
	}
	return existing
}

// reportLost reports entries that were deleted before this group handled them.
// The producers' outboxes still have the events.
func (s *subscription) reportLost(ctx context.Context, ids []string) {
	if len(ids) == 0 {
		return
	}
	s.metrics.lost.With(s.labels).Add(float64(len(ids)))
	s.cfg.Log.ErrorContext(ctx, "stream entries deleted before they were handled", "topic", s.topic, "count", len(ids), "first", ids[0])
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
