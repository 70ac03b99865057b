package api_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"

	"github.com/headgate/headgate/pkg/bus"
	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/pkg/testkit"
	"github.com/headgate/headgate/pkg/token"
	"github.com/headgate/headgate/pkg/web"
	"github.com/headgate/headgate/services/gateway/internal/api"
	"github.com/headgate/headgate/services/gateway/internal/docs"
	"github.com/headgate/headgate/services/gateway/internal/ratelimit"
	"github.com/headgate/headgate/services/gateway/internal/realtime"
	"github.com/headgate/headgate/services/gateway/internal/upstream"
)

// live is a gateway with real-time events and its own server.
type live struct {
	URL string

	t       *testing.T
	hub     *realtime.Hub
	issuer  *testkit.Issuer
	metrics *prometheus.Registry
	handler http.Handler
	server  testkit.Running
}

// liveSetup holds the parts of such a gateway that a test can change.
type liveSetup struct {
	realtime api.Realtime
	limits   realtime.Limits
	rates    api.RateLimits
	origins  api.Origins
	log      *slog.Logger
}

// newLive returns a gateway that is ready, on the Redis at an address.
func newLive(t *testing.T, issuer *testkit.Issuer, redisURL string, change func(*liveSetup)) *live {
	t.Helper()
	g := startLive(t, issuer, redisURL, change)
	g.ready()
	return g
}

func startLive(t *testing.T, issuer *testkit.Issuer, redisURL string, change func(*liveSetup)) *live {
	t.Helper()
	s := liveSetup{limits: realtime.Limits{Total: 1000, PerNetwork: 1000, PerUser: 1000}, log: testkit.Log(t)}
	if change != nil {
		change(&s)
	}
	metrics := prometheus.NewRegistry()
	client := testkit.OpenRedis(t, redisURL, bus.EventTimeout)
	verifier := token.NewRemoteVerifier(token.Remote{JWKSURL: issuer.JWKSURL}, testkit.Expected, s.log, prometheus.NewRegistry(), time.Now)
	testkit.Run(t, verifier)
	check := testkit.Authenticity(t, s.log, prometheus.NewRegistry())
	testkit.Run(t, bus.NewFollower(client, event.User, verifier.Observe, check, s.log))
	follow := func(topic event.Topic, observer func(*realtime.Hub) bus.Observer) func(*realtime.Hub) realtime.Runner {
		return func(h *realtime.Hub) realtime.Runner {
			return bus.NewProgressFollower(bus.ProgressConfig{Client: client, Topic: topic, Observer: observer(h), Check: check, Lookback: realtime.Lookback, Log: s.log})
		}
	}
	hub := realtime.NewHub(realtime.Config{
		Followers: []func(*realtime.Hub) realtime.Runner{follow(event.User, (*realtime.Hub).Users), follow(event.Realtime, (*realtime.Hub).Hints)},
		Ended:     verifier.Ended, Source: realtime.NewRedis(client), Limits: s.limits, Now: time.Now, Log: s.log, Metrics: metrics,
	})
	testkit.Run(t, hub)
	s.realtime.Hub, s.realtime.Tickets, s.realtime.Sessions = hub, realtime.NewTickets(testkit.OpenRedis(t, redisURL, time.Second)), verifier
	described, err := docs.New("Headgate")
	if err != nil {
		t.Fatal(err)
	}
	auth := upstream.New("auth", nil, upstream.Options{Log: s.log, Metrics: upstream.NewMetrics(prometheus.NewRegistry())})
	handler := api.New(api.Config{
		Services: map[string]*upstream.Service{"auth": auth}, Version: "test", Verifier: verifier, Realtime: s.realtime,
		Limiter: ratelimit.New(client, s.log, metrics, time.Now), RateLimits: s.rates, Reports: api.NewReports(auth, s.log, metrics, time.Now),
		Docs: described, CORS: api.CORS{Origins: s.origins}, Now: time.Now,
		Edge: web.Options{Log: s.log, Metrics: metrics, Ready: func(context.Context) error { return nil }},
	})
	server := web.NewServer(web.Listener{}, handler, s.log)
	server.Drain = hub.Drain
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	g := &live{URL: "http://" + listener.Addr().String(), t: t, hub: hub, issuer: issuer, metrics: metrics, handler: handler}
	g.server = testkit.Run(t, served{server, listener})
	return g
}

// served serves on a listener.
type served struct {
	*web.Server

	listener net.Listener
}

func (s served) Run(ctx context.Context) error { return s.Serve(ctx, s.listener) }

// ready waits until the gateway accepts connections.
func (g *live) ready() {
	g.t.Helper()
	testkit.Eventually(g.t, func() error {
		conn, err := g.hub.Open(g.t.Context(), realtime.Client{Session: token.Session{Expires: time.Now().Add(time.Hour)}, Transport: "test"})
		if err == nil {
			conn.Close()
		}
		return err
	})
}

// post sends a request without a body and returns the response and its body.
func (g *live) request(method, path string, header ...string) (*http.Response, string) {
	g.t.Helper()
	r, err := http.NewRequestWithContext(g.t.Context(), method, g.URL+path, http.NoBody)
	if err != nil {
		g.t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		r.Header.Add(header[i], header[i+1])
	}
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		g.t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		g.t.Fatal(err)
	}
	return res, string(body)
}

// ticket returns a ticket for an access token.
func (g *live) ticket(bearer string) string {
	g.t.Helper()
	res, body := g.request("POST", "/api/v1/realtime/ticket", "Authorization", "Bearer "+bearer)
	var answer struct {
		Data struct {
			Ticket    string
			ExpiresIn int
		}
	}
	if err := json.Unmarshal([]byte(body), &answer); err != nil || res.StatusCode != http.StatusCreated || answer.Data.ExpiresIn != 30 {
		g.t.Fatalf("ticket = %d %s", res.StatusCode, body)
	}
	return answer.Data.Ticket
}

// message is one that a client got.
type message struct {
	ID, Type   string
	OccurredAt time.Time
	Data       json.RawMessage
}

// listener is a client.
type listener struct {
	t        *testing.T
	messages chan message
	last     string // id

	closed chan struct{} // closed after the fields below are set
	code   int           // with which a WebSocket was closed
	reason string
}

// listen connects with an access token over a WebSocket, with further parameters.
func (g *live) listen(bearer, parameters string, header ...string) *listener {
	g.t.Helper()
	return g.dial("ticket="+g.ticket(bearer)+parameters, header...)
}

// dial opens a WebSocket with parameters.
func (g *live) dial(parameters string, header ...string) *listener {
	g.t.Helper()
	l := &listener{t: g.t, messages: make(chan message, 10_000), closed: make(chan struct{})}
	socket := g.socket(parameters, header...)
	go func() {
		defer close(l.closed)
		defer close(l.messages)
		for {
			_, data, err := socket.Read(context.Background())
			if err != nil {
				closing, _ := errors.AsType[websocket.CloseError](err)
				l.code, l.reason = int(closing.Code), closing.Reason
				return
			}
			var m message
			if err := json.Unmarshal(data, &m); err != nil {
				g.t.Errorf("message %s: %v", data, err)
			}
			l.messages <- m
		}
	}()
	return l
}

func (g *live) socket(parameters string, header ...string) *websocket.Conn {
	g.t.Helper()
	h := http.Header{}
	for i := 0; i < len(header); i += 2 {
		h.Add(header[i], header[i+1])
	}
	socket, res, err := websocket.Dial(g.t.Context(), "ws"+strings.TrimPrefix(g.URL, "http")+"/api/v1/realtime/ws?"+parameters, &websocket.DialOptions{HTTPHeader: h})
	if err != nil {
		g.t.Fatalf("dial: %v, %v", err, res)
	}
	g.t.Cleanup(func() { _ = socket.CloseNow() })
	return socket
}

// stream connects with an access token to the server-sent events.
func (g *live) stream(bearer, query string, header ...string) *listener {
	g.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	g.t.Cleanup(cancel)
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, g.URL+"/api/v1/realtime/events"+query, http.NoBody)
	if err != nil {
		g.t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+bearer)
	for i := 0; i < len(header); i += 2 {
		r.Header.Add(header[i], header[i+1])
	}
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		g.t.Fatal(err)
	}
	if res.StatusCode != http.StatusOK || res.Header.Get("Content-Type") != "text/event-stream; charset=utf-8" {
		body, _ := io.ReadAll(res.Body)
		g.t.Fatalf("events = %d %v %s", res.StatusCode, res.Header, body)
	}
	l := &listener{t: g.t, messages: make(chan message, 10_000), closed: make(chan struct{})}
	go func() {
		defer close(l.closed)
		defer close(l.messages)
		defer res.Body.Close()
		l.readEvents(res.Body)
	}()
	return l
}

// readEvents reads an event stream as the standard says, and checks that it repeats what the
// messages say.
func (l *listener) readEvents(body io.Reader) {
	var m message
	var kind string
	lines := bufio.NewScanner(body)
	for lines.Scan() {
		field, value, _ := strings.Cut(lines.Text(), ": ")
		switch field {
		case "event":
			kind = value
		case "id":
			m.ID = value
		case "data":
			id := m.ID
			if err := json.Unmarshal([]byte(value), &m); err != nil || m.ID != id || m.Type != kind {
				l.t.Errorf("event %s, id %s, data %s: %v", kind, id, value, err)
			}
		case "":
			switch {
			case lines.Text() != "": // a comment
				m.Type = "connection.heartbeat"
			case m.Type == "connection.closing":
				var closing struct {
					Code   int
					Reason string
				}
				if err := json.Unmarshal(m.Data, &closing); err != nil {
					l.t.Error(err)
				}
				l.code, l.reason = closing.Code, closing.Reason
			case m.Type != "":
				l.messages <- m
			}
			if lines.Text() == "" {
				m, kind = message{}, ""
			}
		}
	}
}

// next returns the next message other than heartbeats.
func (l *listener) next() message {
	l.t.Helper()
	for {
		select {
		case m, ok := <-l.messages:
			if !ok {
				l.t.Fatalf("the connection was closed: %d %s", l.code, l.reason)
			}
			l.last = m.ID
			if m.Type != "connection.heartbeat" {
				return m
			}
		case <-time.After(testkit.Timeout):
			l.t.Fatal("no message came")
		}
	}
}

// want waits for messages of these types, in this order, and for no others before them.
func (l *listener) want(types ...string) (messages []message) {
	l.t.Helper()
	for _, kind := range types {
		m := l.next()
		if m.Type != kind {
			l.t.Fatalf("message = %s %s, want %s", m.Type, m.Data, kind)
		}
		if m.ID == "" || m.OccurredAt.IsZero() || time.Since(m.OccurredAt) > time.Hour {
			l.t.Errorf("message = %+v", m)
		}
		messages = append(messages, m)
	}
	return messages
}

// wantClosed waits until the connection is closed with a code and one of the reasons.
func (l *listener) wantClosed(code int, reasons ...string) {
	l.t.Helper()
	select {
	case <-l.closed:
	case <-time.After(testkit.Timeout):
		l.t.Fatal("the connection is open")
	}
	if l.code != code || len(reasons) > 0 && !slices.Contains(reasons, l.reason) {
		l.t.Errorf("closed with %d %q, want %d %q", l.code, l.reason, code, reasons)
	}
}

// publisher publishes events of a user, as the services do.
type publisher struct {
	t      *testing.T
	client redis.UniversalClient
}

func newPublisher(t *testing.T, redisURL string) publisher {
	t.Helper()
	return publisher{t, testkit.OpenRedis(t, redisURL, bus.EventTimeout)}
}

func (p publisher) publish(subject string, payload event.Payload) {
	p.t.Helper()
	testkit.Publish(p.t, p.client, event.User, testkit.NewEvent(p.t.Context(), subject, payload))
}

func (p publisher) hint(subject string, payload event.Payload) {
	p.t.Helper()
	testkit.Publish(p.t, p.client, event.Realtime, testkit.NewEvent(p.t.Context(), subject, payload))
}

// updated publishes a change of a profile that can be told from others.
func (p publisher) updated(subject string, n int) {
	p.t.Helper()
	p.publish(subject, event.UserProfileUpdated{Fields: []string{strconv.Itoa(n)}})
}

// wantUpdates waits for the events of updated.
func (l *listener) wantUpdates(numbers ...int) {
	l.t.Helper()
	for _, n := range numbers {
		m := l.want("user.updated")[0]
		if want := fmt.Sprintf(`{"fields":["%d"]}`, n); string(m.Data) != want {
			l.t.Fatalf("data = %s, want %s", m.Data, want)
		}
	}
}

const openedType = "connection.opened"
