package realtime

import (
	"github.com/headgate/headgate/pkg/bus"
	"github.com/headgate/headgate/pkg/event"
)

// Lookback is how far in the past the followers of a hub must begin.
const Lookback = window

// Users returns the observer for the follower of event.User.
func (h *Hub) Users() bus.Observer { return observer{h, userStream} }

// Hints returns the observer for the follower of event.Realtime.
func (h *Hub) Hints() bus.Observer { return observer{h, hintStream} }

// observer passes what is read of one stream on to the hub.
type observer struct {
	hub    *Hub
	stream int
}

// Began implements bus.Observer.
func (o observer) Began(from bus.Mark) {
	h := o.hub
	h.mu.Lock()
	defer h.mu.Unlock()
	again := h.began[o.stream]
	h.began[o.stream], h.caughtUp[o.stream] = true, false
	h.at[o.stream] = from
	h.ring.floor[o.stream] = from
	if again {
		h.interrupt()
	}
}

// Event implements bus.Observer.
func (o observer) Event(at bus.Mark, e event.Event) {
	h := o.hub
	h.mu.Lock()
	defer h.mu.Unlock()
	if at.Before(h.at[o.stream]) {
		// The clock of Redis was set back, for example by a failover.
		h.at[o.stream] = at
		h.interrupt()
	}
	h.at[o.stream] = at
	t, ok := translate(o.stream, e)
	if !ok || h.ring.events[e.ID] { // A relay may publish an event twice.
		return
	}
	m := encode(Position{h.epoch, h.at}, t.fact)
	h.ring.add(&kept{stream: o.stream, at: at, eventID: e.ID, to: t.to, message: m})
	h.deliver(t, m)
}

// deliver passes a message on to its audience. The connections of a session that has ended get
// nothing more. The hub is locked.
func (h *Hub) deliver(t translation, m *Message) {
	for c := range h.to[t.to] {
		if t.ended != "" && c.client.Session.ID == t.ended {
			c.end(&Closing{Code: CodeEnded, Reason: "session_revoked"})
			continue
		}
		c.push(m)
	}
	h.metrics.delivered.Add(float64(len(h.to[t.to])))
}

// Reached implements bus.Observer.
func (o observer) Reached(at bus.Mark) {
	h := o.hub
	h.mu.Lock()
	defer h.mu.Unlock()
	h.caughtUp[o.stream] = true
	if h.at[o.stream].Before(at) {
		h.at[o.stream] = at
	}
	h.ring.expire(h.at[o.stream].Time().Add(-window))
}

// interrupt says that events may be missing, because Redis lost some. Clients must not believe
// that they have seen everything. The hub is locked.
func (h *Hub) interrupt() {
	h.ring = newRing(h.at)
	failed := h.control(fact{kind: typeResumeFailed, data: noData{}})
	for c := range h.conns {
		c.push(failed)
	}
}
