package realtime

import (
	"cmp"
	"slices"
	"time"

	"github.com/headgate/headgate/pkg/bus"
)

const (
	// window is how long messages are kept: the five minutes that are promised, and the time
	// since the last heartbeat that a client without connection may have missed.
	window = 5*time.Minute + 2*HeartbeatEvery
	// maxKept limits the messages that are kept. One takes about half a kilobyte.
	maxKept = 50_000
)

// kept is a message in the ring.
type kept struct {
	number  uint64
	stream  int
	at      bus.Mark
	eventID string
	to      audience
	message *Message
}

// ring holds the latest messages, in the order in which they were delivered.
type ring struct {
	all    []*kept // the oldest first
	to     map[audience][]*kept
	events map[string]bool // by id
	floor  marks           // Everything after it that was read is still here.
	number uint64
}

func newRing(floor marks) *ring {
	return &ring{to: map[audience][]*kept{}, events: map[string]bool{}, floor: floor}
}

// add keeps a message, and drops those that are older than window by the clock of Redis.
func (r *ring) add(k *kept) {
	r.number++
	k.number = r.number
	r.all = append(r.all, k)
	r.to[k.to] = append(r.to[k.to], k)
	r.events[k.eventID] = true
	if len(r.all) > maxKept {
		r.drop()
	}
}

// expire drops the messages of entries that were added before a time.
func (r *ring) expire(before time.Time) {
	for len(r.all) > 0 && r.all[0].at.Time().Before(before) {
		r.drop()
	}
}

// drop drops the oldest message.
func (r *ring) drop() {
	oldest := r.all[0]
	r.all[0], r.all = nil, r.all[1:]
	if r.floor[oldest.stream].Before(oldest.at) {
		r.floor[oldest.stream] = oldest.at
	}
	delete(r.events, oldest.eventID)
	same := r.to[oldest.to]
	same[0] = nil
	if same = same[1:]; len(same) == 0 {
		delete(r.to, oldest.to)
		return
	}
	r.to[oldest.to] = same
}

// covers reports whether the ring has everything that follows a position.
func (r *ring) covers(at marks) bool {
	for i := range at {
		if at[i].Before(r.floor[i]) {
			return false
		}
	}
	return true
}

// after returns the messages to some audiences that follow a position, in their order.
func (r *ring) after(at marks, to []audience) []*Message {
	var found []*kept
	for _, a := range to {
		for _, k := range r.to[a] {
			if at[k.stream].Before(k.at) {
				found = append(found, k)
			}
		}
	}
	slices.SortFunc(found, func(a, b *kept) int { return cmp.Compare(a.number, b.number) })
	messages := make([]*Message, len(found))
	for i, k := range found {
		messages[i] = k.message
	}
	return messages
}
