package bus_test

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/headgate/headgate/pkg/bus"
	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/pkg/testkit"
)

// watcher records what a follower tells.
type watcher struct {
	mu      sync.Mutex
	began   []bus.Mark
	events  []bus.Mark
	reached bus.Mark
}

func (w *watcher) Began(from bus.Mark) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.began = append(w.began, from)
}

func (w *watcher) Event(at bus.Mark, _ event.Event) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.events = append(w.events, at)
}

func (w *watcher) Reached(at bus.Mark) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.reached = at
}

func (w *watcher) follow(t *testing.T, client redis.UniversalClient) {
	t.Helper()
	testkit.Run(t, bus.NewProgressFollower(bus.ProgressConfig{
		Client: client, Topic: event.User, Observer: w, Lookback: 5 * time.Minute, Log: testkit.Log(t),
	}))
}

func (w *watcher) want(t *testing.T, condition func() error) {
	t.Helper()
	testkit.Eventually(t, func() error {
		w.mu.Lock()
		defer w.mu.Unlock()
		return condition()
	})
}

// TestREL103Progress: a follower says where each event is, from where on nothing is missing, and
// up to where it has read although nothing happens.
func TestREL103Progress(t *testing.T) {
	t.Parallel()
	now := time.Now()
	at := func(ago time.Duration) string { return fmt.Sprintf("%d-0", now.Add(-ago).UnixMilli()) }
	for name, tc := range map[string]struct {
		entries []string
		trim    string // the first entry that is left
		seen    int
		from    string // after which nothing is missing; five minutes ago if empty
	}{
		"no stream":              {},
		"nothing trimmed":        {entries: []string{at(10 * time.Minute), at(4 * time.Minute), at(time.Minute)}, seen: 2},
		"young, nothing trimmed": {entries: []string{at(time.Minute)}, seen: 1},
		"older ones trimmed":     {entries: []string{at(10 * time.Minute), at(9 * time.Minute), at(time.Minute)}, trim: at(9 * time.Minute), seen: 1},
		"young ones trimmed":     {entries: []string{at(4 * time.Minute), at(3 * time.Minute), at(time.Minute)}, trim: at(3 * time.Minute), seen: 2, from: at(3 * time.Minute)},
		"all trimmed":            {entries: []string{at(2 * time.Minute)}, trim: at(0), seen: 0, from: at(2 * time.Minute)},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			client := testkit.Redis(t)
			for _, id := range tc.entries {
				m := newMessage(t, event.SessionRevoked{SessionID: id})
				values := map[string]any{"_watermill_message_uuid": m.UUID, "payload": []byte(m.Payload), "metadata": ""}
				if err := client.XAdd(t.Context(), &redis.XAddArgs{Stream: string(event.User), ID: id, Values: values}).Err(); err != nil {
					t.Fatal(err)
				}
			}
			if tc.trim != "" {
				if err := client.XTrimMinID(t.Context(), string(event.User), tc.trim).Err(); err != nil {
					t.Fatal(err)
				}
			}
			w := &watcher{}
			w.follow(t, client)
			w.want(t, func() error {
				if len(w.began) != 1 || len(w.events) != tc.seen || w.reached == (bus.Mark{}) {
					return fmt.Errorf("began %v, %d events, reached %v", w.began, len(w.events), w.reached)
				}
				return nil
			})
			from := w.began[0]
			if tc.from == "" {
				if age := time.Since(from.Time()); age < 5*time.Minute || age > 6*time.Minute {
					t.Errorf("nothing is missing after %s ago", age)
				}
			} else {
				want, err := bus.ParseMark(tc.from)
				if err != nil {
					t.Fatal(err)
				}
				// Right before the entry, or the last one that was there.
				if want.Before(from) || from.Time().Before(want.Time().Add(-2*time.Millisecond)) {
					t.Errorf("nothing is missing after %s, want %s", from, want)
				}
			}
			if age := time.Since(w.reached.Time()); age > 10*time.Second || age < 0 {
				t.Errorf("read up to %s ago", age)
			}
			before := w.reached
			w.want(t, func() error {
				if !before.Before(w.reached) {
					return fmt.Errorf("still at %s", before)
				}
				return nil
			})
		})
	}
}

// TestREL103ProgressOfReplacedStream: the observer learns that the stream is another one.
func TestREL103ProgressOfReplacedStream(t *testing.T) {
	t.Parallel()
	client := testkit.Redis(t)
	w := &watcher{}
	w.follow(t, client)
	publish := func(id string) {
		t.Helper()
		m := newMessage(t, event.SessionRevoked{SessionID: "s"})
		values := map[string]any{"_watermill_message_uuid": m.UUID, "payload": []byte(m.Payload), "metadata": ""}
		if err := client.XAdd(t.Context(), &redis.XAddArgs{Stream: string(event.User), ID: id, Values: values}).Err(); err != nil {
			t.Fatal(err)
		}
	}
	publish(fmt.Sprintf("%d-0", time.Now().Add(time.Hour).UnixMilli()))
	w.want(t, func() error {
		if len(w.events) != 1 {
			return fmt.Errorf("%d events", len(w.events))
		}
		return nil
	})
	if err := client.Del(t.Context(), string(event.User)).Err(); err != nil {
		t.Fatal(err)
	}
	publish("*")
	w.want(t, func() error {
		if len(w.began) != 2 || len(w.events) != 2 || !w.began[1].Before(w.events[1]) {
			return fmt.Errorf("began %v, events %v", w.began, w.events)
		}
		return nil
	})
}

func FuzzParseMark(f *testing.F) {
	for _, seed := range []string{"", "1-0", "0-0", "-1-0", "1", "01-0", "+1-0", "1-0-0", "9223372036854775807-9223372036854775807", "9223372036854775808-0"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		m, err := bus.ParseMark(text)
		if err != nil {
			return
		}
		if m.String() != text {
			t.Errorf("%q reads as %s", text, m)
		}
		if m.Before(m) {
			t.Errorf("%s is before itself", m)
		}
	})
}
