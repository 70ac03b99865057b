package realtime_test

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/headgate/headgate/pkg/bus"
	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/pkg/testkit"
	"github.com/headgate/headgate/pkg/token"
	"github.com/headgate/headgate/services/gateway/internal/realtime"
)

func TestMain(m *testing.M) { testkit.Main(m) }

// source is a Redis whose epoch a test can change.
type source struct{ epoch atomic.Pointer[string] }

func newSource(epoch string) *source {
	s := &source{}
	s.epoch.Store(&epoch)
	return s
}

func (s *source) Epoch(context.Context) (string, error) { return *s.epoch.Load(), nil }

func (s *source) Lags(context.Context) ([]realtime.Lag, error) {
	return []realtime.Lag{{Stream: "user-events", Group: "user-service", Unread: 1}}, nil
}

const (
	firstEpoch  = "00000000000000aa"
	secondEpoch = "00000000000000bb"
)

// began is when the streams of a test begin.
var began = time.UnixMilli(1_700_000_000_000)

// fed is a hub that a test feeds with events instead of followers.
type fed struct {
	*realtime.Hub

	t       *testing.T
	source  *source
	metrics *prometheus.Registry
	ended   atomic.Pointer[func(token.Session) error]
}

func newFed(t *testing.T) *fed {
	t.Helper()
	return newFedAt(t, began)
}

// newFedAt returns a hub whose followers began at a time.
func newFedAt(t *testing.T, began time.Time) *fed {
	t.Helper()
	f := &fed{t: t, source: newSource(firstEpoch), metrics: prometheus.NewRegistry()}
	f.Hub = realtime.NewHub(realtime.Config{
		Ended: func(s token.Session) error {
			if ended := f.ended.Load(); ended != nil {
				return (*ended)(s)
			}
			return nil
		},
		Source: f.source, Limits: realtime.Limits{Total: 100, PerNetwork: 60, PerUser: 50}, Now: time.Now,
		Log: testkit.Log(t), Metrics: f.metrics,
	})
	testkit.Run(t, f.Hub)
	for _, o := range []bus.Observer{f.Users(), f.Hints()} {
		o.Began(bus.MarkAt(began))
		o.Reached(bus.MarkAt(began))
	}
	return f
}

// updated feeds the hub with an event of a user, which was added some time after began.
func (f *fed) updated(user string, after time.Duration) {
	f.Users().Event(bus.MarkAt(began.Add(after)), testkit.NewEvent(f.t.Context(), user, event.UserProfileUpdated{Fields: []string{after.String()}}))
}

func (f *fed) open(user, session string, after *realtime.Position, channels ...realtime.Channel) *realtime.Conn {
	f.t.Helper()
	var conn *realtime.Conn
	testkit.Eventually(f.t, func() (err error) {
		conn, err = f.Open(f.t.Context(), realtime.Client{
			Identity: token.Identity{UserID: user}, Session: token.Session{ID: session}, Transport: "websocket", Channels: channels, After: after,
		})
		return err
	})
	f.t.Cleanup(conn.Close)
	return conn
}

// textOf returns what a message says: its type, and the field that was updated.
func textOf(m *realtime.Message) string {
	var body struct {
		ID, Type string
		Data     struct{ Fields []string }
	}
	if err := json.Unmarshal(m.JSON, &body); err != nil || body.ID != m.ID || body.Type != m.Type {
		return fmt.Sprintf("malformed %s", m.JSON)
	}
	return strings.TrimSpace(m.Type + " " + strings.Join(body.Data.Fields, ","))
}

// all returns what a connection was told so far, and the position after it.
func all(t *testing.T, c *realtime.Conn) (messages []string, last *realtime.Position) {
	t.Helper()
	queue := slices.Clone(c.Backlog())
	for len(c.Messages()) > 0 {
		queue = append(queue, <-c.Messages())
	}
	for _, m := range queue {
		messages = append(messages, textOf(m))
		p, err := realtime.ParsePosition(m.ID)
		if err != nil {
			t.Fatal(err)
		}
		last = &p
	}
	return messages, last
}

func wantMessages(t *testing.T, c *realtime.Conn, want ...string) *realtime.Position {
	t.Helper()
	got, last := all(t, c)
	if !slices.Equal(got, want) {
		t.Errorf("the client was told %q, want %q", got, want)
	}
	return last
}

const (
	opened = "connection.opened"
	failed = "resume.failed"
)
