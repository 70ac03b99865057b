package realtime_test

import (
	"strings"
	"testing"
	"time"

	"github.com/headgate/headgate/pkg/bus"
	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/pkg/testkit"
)

// TestREL103ResumeFromTheRing: a client continues after the last message that it has seen, and
// is told if that is no longer possible, never silently.
func TestREL103ResumeFromTheRing(t *testing.T) {
	t.Parallel()
	f := newFed(t)
	f.updated("ann", time.Second)
	f.updated("bob", 2*time.Second)
	c := f.open("ann", "s", nil)
	first := wantMessages(t, c, opened)
	f.updated("ann", 3*time.Second)
	f.updated("bob", 4*time.Second)
	f.updated("ann", 5*time.Second)
	second := wantMessages(t, c, opened, "user.updated 3s", "user.updated 5s")
	f.updated("ann", 6*time.Second)

	wantMessages(t, f.open("ann", "s", first), "user.updated 3s", "user.updated 5s", "user.updated 6s", opened)
	wantMessages(t, f.open("ann", "s", second), "user.updated 6s", opened)
	wantMessages(t, f.open("bob", "s", second), opened)
	wantMessages(t, f.open("bob", "s", first), "user.updated 4s", opened)

	// Both streams have positions of their own.
	f.Hints().Event(bus.MarkAt(began.Add(2*time.Second)), testkit.NewEvent(t.Context(), "ann", event.EmailSent{Template: "verify"}))
	third := wantMessages(t, f.open("ann", "s", second), "user.updated 6s", "email.sent", opened)
	wantMessages(t, f.open("ann", "s", third), opened)

	// After five minutes and the time of two heartbeats.
	f.updated("ann", time.Minute)
	f.Users().Reached(bus.MarkAt(began.Add(6*time.Minute + 30*time.Second)))
	wantMessages(t, f.open("ann", "s", third), "user.updated 1m0s", opened)
	wantMessages(t, f.open("ann", "s", second), failed, opened)
	wantMessages(t, f.open("ann", "s", first), failed, opened)
}

// TestREL103QuietStreams: a client that has not heard of an event for hours continues, because
// its heartbeats say that it has missed nothing.
func TestREL103QuietStreams(t *testing.T) {
	t.Parallel()
	f := newFed(t)
	c := f.open("ann", "s", nil)
	for minute := range 120 {
		f.updated("bob", time.Duration(minute)*time.Minute)
		f.Users().Reached(bus.MarkAt(began.Add(time.Duration(minute)*time.Minute + time.Second)))
	}
	c.Heartbeat()
	beat := wantMessages(t, c, opened, "connection.heartbeat")
	f.updated("ann", 2*time.Hour)
	wantMessages(t, f.open("ann", "s", beat), "user.updated 2h0m0s", opened)

	// Also at a gateway that reads back five minutes only, if there were no events at all.
	for _, o := range []bus.Observer{f.Users(), f.Hints()} {
		o.Reached(bus.MarkAt(began.Add(4 * time.Hour)))
	}
	c.Heartbeat()
	_, quiet := all(t, c)
	fresh := newFedAt(t, began.Add(4*time.Hour-time.Minute))
	for _, o := range []bus.Observer{fresh.Users(), fresh.Hints()} {
		o.Reached(bus.MarkAt(began.Add(4*time.Hour + time.Second)))
	}
	wantMessages(t, fresh.open("ann", "s", quiet), opened)
}

// TestREL103LostData: a client that may have missed an event because Redis lost it is told.
func TestREL103LostData(t *testing.T) {
	t.Parallel()
	for name, lose := range map[string]func(f *fed){
		"the follower begins again": func(f *fed) { f.Users().Began(bus.MarkAt(began.Add(time.Second))) },
		"ids go back":               func(f *fed) { f.updated("bob", time.Second) },
		"another epoch": func(f *fed) {
			epoch := secondEpoch
			f.source.epoch.Store(&epoch)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFed(t)
			c := f.open("ann", "s", nil)
			f.updated("ann", time.Minute)
			before := wantMessages(t, c, opened, "user.updated 1m0s")
			lose(f)
			select {
			case m := <-c.Messages():
				if textOf(m) != failed {
					t.Errorf("told %s, want %s", textOf(m), failed)
				}
			case <-time.After(testkit.Timeout):
				t.Fatal("a connected client was not told")
			}
			f.Users().Reached(bus.MarkAt(began.Add(2 * time.Second)))
			wantMessages(t, f.open("ann", "s", before), failed, opened)
		})
	}
}

// TestREL103GatewayBehind: a client that comes from a gateway that was faster gets what follows,
// once.
func TestREL103GatewayBehind(t *testing.T) {
	t.Parallel()
	fast, slow := newFed(t), newFed(t)
	c := fast.open("ann", "s", nil)
	e := testkit.NewEvent(t.Context(), "ann", event.UserProfileUpdated{Fields: []string{"a"}})
	at := bus.MarkAt(began.Add(time.Minute))
	fast.Users().Event(at, e)
	seen := wantMessages(t, c, opened, "user.updated a")
	slow.open("ann", "s", nil) // It is ready.
	go slow.Users().Event(at, e)
	wantMessages(t, slow.open("ann", "s", seen), opened)

	// One that never catches up cannot vouch for anything.
	never := newFed(t)
	wantMessages(t, never.open("ann", "s", seen), failed, opened)
}

// TestREL103TooManyMessages: what is kept is bounded, and a client that needs more is told.
func TestREL103TooManyMessages(t *testing.T) {
	t.Parallel()
	f := newFed(t)
	before := wantMessages(t, f.open("ann", "s", nil), opened)
	for i := range 50_001 {
		f.updated("bob", time.Duration(1+i)*time.Millisecond)
	}
	wantMessages(t, f.open("ann", "s", before), failed, opened)
	if kept := gauge(t, f.metrics, "headgate_realtime_kept_messages"); kept != 50_000 {
		t.Errorf("%v messages are kept", kept)
	}
}

// TestEventsTwice: an event that its producer published twice is told once.
func TestEventsTwice(t *testing.T) {
	t.Parallel()
	f := newFed(t)
	c := f.open("ann", "s", nil)
	e := testkit.NewEvent(t.Context(), "ann", event.UserProfileUpdated{Fields: []string{"a"}})
	f.Users().Event(bus.MarkAt(began.Add(time.Second)), e)
	f.Users().Event(bus.MarkAt(began.Add(2*time.Second)), e)
	wantMessages(t, c, opened, "user.updated a")
}

// TestREL103IdsGrow: the ids of a connection never go back.
func TestREL103IdsGrow(t *testing.T) {
	t.Parallel()
	f := newFed(t)
	c := f.open("ann", "s", nil)
	for i := range 30 {
		f.updated("ann", time.Duration(i)*time.Second)
		f.Hints().Event(bus.MarkAt(began.Add(time.Duration(30-i)*time.Millisecond+time.Duration(i)*time.Second)), testkit.NewEvent(t.Context(), "ann", event.EmailSent{}))
	}
	last := []string{"", ""}
	for len(c.Messages()) > 0 {
		parts := strings.Split((<-c.Messages()).ID, ".")[1:]
		for i, part := range parts {
			at, err := bus.ParseMark(part)
			if err != nil {
				t.Fatal(err)
			}
			if before, err := bus.ParseMark(last[i]); err == nil && at.Before(before) {
				t.Errorf("%s follows %s", part, last[i])
			}
			last[i] = part
		}
	}
}
