package realtime_test

import (
	"context"
	"encoding/json"
	"errors"
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

// TestREL103LostData: whoever may have missed an event because Redis lost it is told.
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

// TestSEC157SlowClientsAreDropped: a client that does not read loses its connection, and the
// others get everything.
func TestSEC157SlowClientsAreDropped(t *testing.T) {
	t.Parallel()
	f := newFed(t)
	slow, fast := f.open("ann", "s", nil), f.open("ann", "s", nil)
	const sent = 200
	got := make(chan int)
	go func() {
		n := 0
		for ; n < sent; n++ {
			<-fast.Messages()
		}
		got <- n
	}()
	for i := range sent {
		f.updated("ann", time.Duration(i)*time.Second)
		testkit.Eventually(t, func() error {
			if len(fast.Messages()) > 0 {
				return errors.New("not read yet")
			}
			return nil
		})
	}
	if n := <-got; n != sent {
		t.Errorf("the fast client got %d messages", n)
	}
	if why := slow.Why(); why == nil || why.Code != 4408 || why.Reason != "too_slow" {
		t.Errorf("the slow client: %v", why)
	}
	if fast.Why() != nil {
		t.Errorf("the fast client: %v", fast.Why())
	}
	if len(slow.Messages()) > 64 {
		t.Errorf("%d messages wait for the slow client", len(slow.Messages()))
	}
}

// TestSEC155EndedSessions: the connections of a session that ends close, however it ends.
func TestSEC155EndedSessions(t *testing.T) {
	t.Parallel()
	f := newFed(t)
	ended, other := f.open("ann", "ended", nil), f.open("ann", "other", nil)
	f.Users().Event(bus.MarkAt(began.Add(time.Second)), testkit.NewEvent(t.Context(), "ann", event.SessionRevoked{SessionID: "ended", Reason: "admin"}))
	if why := ended.Why(); why == nil || why.Code != 4401 {
		t.Errorf("the ended session: %v", why)
	}
	f.updated("ann", 2*time.Second)
	wantMessages(t, ended, opened)
	wantMessages(t, other, opened, "session.revoked", "user.updated 2s")

	for reason, err := range map[string]error{"token_expired": token.ErrExpired, "session_revoked": token.ErrRevoked} {
		c := f.open("ann", reason, nil)
		check := func(s token.Session) error {
			if s.ID == reason {
				return err
			}
			return nil
		}
		f.ended.Store(&check)
		select {
		case <-c.Done():
			if why := c.Why(); why == nil || why.Code != 4401 || why.Reason != reason {
				t.Errorf("%s: %v", reason, why)
			}
		case <-time.After(testkit.Timeout):
			t.Errorf("%s: the connection is open", reason)
		}
		if _, err := f.Open(t.Context(), realtime.Client{Identity: token.Identity{UserID: "ann"}, Session: token.Session{ID: reason}}); err == nil {
			t.Errorf("%s: another connection was opened", reason)
		}
	}
}

// TestSEC154Translation: a message has nothing of an event but what is listed here, and goes to
// the subject alone.
func TestSEC154Translation(t *testing.T) {
	t.Parallel()
	f := newFed(t)
	ann, bob := f.open("ann", "s", nil, realtime.Channels()...), f.open("bob", "s", nil)
	admins := []event.Payload{event.AuditAppended{Count: 3}, event.DeadLetterAdded{Count: 2}}
	own := []event.Payload{
		event.UserLoggedIn{SessionID: "new", DeviceName: "secret"},
		event.UserLoggedIn{SessionID: "new", Method: "passkey"},
		event.SessionRevoked{SessionID: "other", Reason: "admin"},
		event.UserLoggedOut{SessionID: "other"},
		event.UserProfileUpdated{Fields: []string{"bio"}, Version: 7},
		event.UserEmailVerified{Email: "secret"},
		event.UserEmailChanged{Email: "secret", PreviousEmail: "secret"},
		event.UserRoleChanged{Before: "user", After: "admin", Email: "secret", Name: "secret"},
	}
	at := 0
	feed := func(o bus.Observer, subject string, payloads ...event.Payload) {
		for _, p := range payloads {
			at++
			o.Event(bus.MarkAt(began.Add(time.Duration(at)*time.Second)), testkit.NewEvent(t.Context(), subject, p))
		}
	}
	feed(f.Users(), "ann", own...)
	feed(f.Hints(), "ann", event.EmailSent{MessageID: "secret", Template: "verify", To: "secret"})
	feed(f.Hints(), "", admins...)
	feed(f.Users(), "ann", admins...)                                    // They belong to another stream,
	feed(f.Hints(), "ann", event.UserProfileUpdated{Fields: []string{}}) // and this one, too.
	feed(f.Users(), "", event.UserProfileUpdated{})                      // about nobody
	feed(f.Users(), "ann", event.UserSignedUp{Email: "secret"}, event.UserDisabled{}, event.UserDeleted{})

	var got []string
	for len(ann.Messages()) > 0 {
		var m struct {
			Type string
			Data json.RawMessage
		}
		if err := json.Unmarshal((<-ann.Messages()).JSON, &m); err != nil {
			t.Fatal(err)
		}
		if m.Type != "stream.lag" { // It comes by itself.
			got = append(got, m.Type+" "+string(m.Data))
		}
	}
	want := []string{
		`session.created {"sessionId":"new","method":"password"}`,
		`session.created {"sessionId":"new","method":"passkey"}`,
		`session.revoked {"sessionId":"other","reason":"admin"}`,
		`session.revoked {"sessionId":"other","reason":"logout"}`,
		`user.updated {"fields":["bio"]}`,
		`user.updated {"fields":["emailVerified"]}`,
		`user.updated {"fields":["email"]}`,
		`user.role_changed {"role":"admin","previousRole":"user"}`,
		`email.sent {"template":"verify"}`,
		`audit.appended {"count":3}`,
		`dead_letter.added {"service":"user-service","count":2}`,
	}
	if !slices.Equal(got, want) {
		t.Errorf("ann was told\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	wantMessages(t, bob, opened)
}

// TestREL104Drain: the clients of a gateway that stops are told to connect again, at different
// times, and it stops when they have gone.
func TestREL104Drain(t *testing.T) {
	t.Parallel()
	f := newFed(t)
	var leave []func()
	waits := map[time.Duration]bool{}
	var conns []*realtime.Conn
	for range 20 {
		left, err := f.Enter("net")
		if err != nil {
			t.Fatal(err)
		}
		leave = append(leave, left)
		conns = append(conns, f.open("ann", "s", nil))
	}
	drained := make(chan error, 1)
	go func() { drained <- f.Drain(t.Context()) }()
	for _, c := range conns {
		<-c.Done()
		why := c.Why()
		if why.Code != 1012 || why.Reconnect > time.Second {
			t.Errorf("closing = %v, reconnect after %s", why, why.Reconnect)
		}
		waits[why.Reconnect] = true
	}
	if len(waits) < 10 {
		t.Errorf("20 clients come back at %d times", len(waits))
	}
	if _, err := f.Enter("net"); !errors.Is(err, realtime.ErrUnavailable) {
		t.Errorf("a client of a gateway that stops: %v", err)
	}
	for i, left := range leave {
		select {
		case err := <-drained:
			t.Fatalf("drained with %d clients: %v", len(leave)-i, err)
		default:
		}
		conns[i].Close()
		left()
		left() // A second call has no effect.
	}
	if err := <-drained; err != nil {
		t.Error(err)
	}
	if n := gauge(t, f.metrics, "headgate_realtime_connections"); n != 0 {
		t.Errorf("%v connections are counted", n)
	}
}

func TestREL104DrainIsBounded(t *testing.T) {
	t.Parallel()
	f := newFed(t)
	if _, err := f.Enter("net"); err != nil { // Its owner never leaves.
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := f.Drain(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("drain = %v", err)
	}
}

func TestSEC157Limits(t *testing.T) {
	t.Parallel()
	f := newFed(t)
	var leave []func()
	for i := range 100 {
		left, err := f.Enter(fmt.Sprint("net", i%2))
		if err != nil {
			t.Fatal(err)
		}
		leave = append(leave, left)
	}
	if _, err := f.Enter("net2"); !errors.Is(err, realtime.ErrFull) {
		t.Errorf("client 101: %v", err)
	}
	for _, left := range leave[:40] {
		left()
	}
	for range 30 { // 30 of net0 are left
		if _, err := f.Enter("net0"); err != nil {
			t.Errorf("after some have gone: %v", err)
		}
	}
	if _, err := f.Enter("net0"); !errors.Is(err, realtime.ErrTooMany) {
		t.Errorf("client 61 of a network: %v", err)
	}
	for range 50 {
		f.open("ann", "s", nil)
	}
	refused := func() error {
		_, err := f.Open(t.Context(), realtime.Client{Identity: token.Identity{UserID: "ann"}, Transport: "websocket"})
		return err
	}
	if err := refused(); !errors.Is(err, realtime.ErrTooMany) {
		t.Errorf("connection 51 of a user: %v", err)
	}
	f.open("bob", "s", nil)
	var refusals strings.Builder
	families, err := f.metrics.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range families {
		if family.GetName() == "headgate_realtime_refused_total" {
			fmt.Fprint(&refusals, family)
		}
	}
	for _, reason := range []string{"total", "network", "user"} {
		if !strings.Contains(refusals.String(), `value:"`+reason+`"`) {
			t.Errorf("refusals by the limit %s are not counted: %s", reason, &refusals)
		}
	}
}

// TestStreamLag: administrators who listen to the streams are told how far they are behind.
func TestStreamLag(t *testing.T) {
	t.Parallel()
	f := newFed(t)
	c, other := f.open("ann", "s", nil, realtime.Streams), f.open("ann", "s", nil)
	select {
	case m := <-c.Messages():
		if !strings.Contains(string(m.JSON), `"type":"stream.lag"`) || !strings.Contains(string(m.JSON), `"data":{"streams":[{"stream":"user-events","group":"user-service","unread":1,"pending":0}]}`) {
			t.Errorf("message = %s", m.JSON)
		}
	case <-time.After(testkit.Timeout):
		t.Fatal("no message")
	}
	wantMessages(t, other, opened)
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

func gauge(t *testing.T, reg *prometheus.Registry, name string) float64 {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	sum := 0.0
	for _, family := range families {
		if family.GetName() == name {
			for _, m := range family.GetMetric() {
				sum += m.GetGauge().GetValue()
			}
		}
	}
	return sum
}

func FuzzParsePosition(f *testing.F) {
	for _, seed := range []string{"", "00000000000000aa.1-0.2-3", "00000000000000aa.1-0", "00000000000000AA.1-0.2-0", "x.-1-0.2-0", "00000000000000aa.01-0.2-0", "00000000000000aa.9223372036854775807-9223372036854775807.0-0", "00000000000000aa.1-0.2-0\n"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		p, err := realtime.ParsePosition(text)
		if err == nil && p.String() != text {
			t.Errorf("%q reads as %q", text, p)
		}
	})
}

func FuzzParseChannels(f *testing.F) {
	for _, seed := range []string{"", "audit", "audit,streams,audit", ",", "audit,", "AUDIT"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		found, err := realtime.ParseChannels(text)
		if err != nil {
			return
		}
		for _, c := range found {
			if !slices.Contains(realtime.Channels(), c) || !strings.Contains(text, string(c)) {
				t.Errorf("%q has the channel %q", text, c)
			}
		}
	})
}
