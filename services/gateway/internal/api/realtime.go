package api

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/pkg/problem"
	"github.com/headgate/headgate/pkg/token"
	"github.com/headgate/headgate/pkg/web"
	"github.com/headgate/headgate/services/gateway/internal/realtime"
)

// The routes of real-time events.
const (
	ticketPath = "/api/v1/realtime/ticket"
	socketPath = "/api/v1/realtime/ws"
	eventsPath = "/api/v1/realtime/events"
)

// Realtime holds the parts of the real-time routes. Without a Hub there are none.
type Realtime struct {
	Hub       *realtime.Hub
	Tickets   realtime.Tickets
	Sessions  Sessions
	StepUp    web.StepUp // which roles need a second factor
	PublicURL string     // of the gateway; its origin is allowed. If empty, the origin of each request's own host is.

	// The time between heartbeats, and how long a client may take to answer a ping or to read
	// a message; the defaults if zero.
	Heartbeat, AnswerTimeout time.Duration
}

const defaultAnswerTimeout = 10 * time.Second

// Sessions verifies the tokens of connections that last.
type Sessions interface {
	VerifySession(ctx context.Context, raw string) (token.Identity, token.Session, error)
}

// realtimeRoutes serves real-time events.
type realtimeRoutes struct {
	Realtime

	limits *rateLimiter
	cors   Origins
}

func newRealtimeRoutes(cfg Config, limits *rateLimiter) *realtimeRoutes {
	rt := &realtimeRoutes{Realtime: cfg.Realtime, limits: limits, cors: cfg.CORS.Origins}
	if rt.Heartbeat == 0 {
		rt.Heartbeat = realtime.HeartbeatEvery
	}
	if rt.AnswerTimeout == 0 {
		rt.AnswerTimeout = defaultAnswerTimeout
	}
	return rt
}

type ticket struct {
	Ticket    string `json:"ticket"`
	ExpiresIn int    `json:"expiresIn"`
}

// issue returns a ticket for the caller's access token.
func (rt *realtimeRoutes) issue(w http.ResponseWriter, r *http.Request) error {
	raw, _, _, err := rt.authenticate(w, r, ticketPath)
	if err != nil {
		return err
	}
	if _, err := web.Takes().Read(r); err != nil {
		return err
	}
	if _, err := web.Read[struct{}](w, r); err != nil {
		return err
	}
	issued, err := rt.Tickets.Issue(r.Context(), raw)
	if err != nil {
		return err
	}
	return web.OK(w, http.StatusCreated, ticket{issued, int(realtime.TicketTTL.Seconds())})
}

// authenticate checks the rate limits and the access token of a request.
func (rt *realtimeRoutes) authenticate(w http.ResponseWriter, r *http.Request, path string) (string, token.Identity, token.Session, error) {
	fail := func(err error) (string, token.Identity, token.Session, error) {
		web.Challenge(w.Header(), err)
		return "", token.Identity{}, token.Session{}, err
	}
	if err := rt.limits.checkNetwork(w, r); err != nil {
		return fail(err)
	}
	raw, err := web.Bearer(r)
	if err != nil {
		return fail(err)
	}
	identity, session, err := rt.Sessions.VerifySession(r.Context(), raw)
	if err != nil {
		return fail(err)
	}
	web.SetUser(r.Context(), identity.UserID)
	if err := rt.limits.checkUser(w, r, identity.UserID); err != nil {
		return fail(err)
	}
	if err := rt.limits.checkRoute(w, r, rt.limits.routeOf(r, path), identity.UserID, ""); err != nil {
		return fail(err)
	}
	return raw, rt.StepUp.Restrict(identity), session, nil
}

// wish is what a client asks for.
type wish struct {
	after    *realtime.Position
	channels []realtime.Channel
}

// lastEventIDHeader is the header in which a client of server-sent events says what it has
// seen.
const lastEventIDHeader = "Last-Event-ID"

// readWish reads the id of the last message that a client has seen, whose field is named, and
// a list of channels. Both may be empty.
func readWish(field, lastID, channels string) (wish, error) {
	var wanted wish
	var faults []problem.Field
	if lastID != "" {
		after, err := realtime.ParsePosition(lastID)
		if err != nil {
			faults = append(faults, problem.Field{Field: field, Code: "invalid_format", Message: "Invalid id: use the id of the last message, or leave it out."})
		}
		wanted.after = &after
	}
	found, err := realtime.ParseChannels(channels)
	if err != nil {
		faults = append(faults, problem.Field{Field: "channels", Code: "unknown", Message: "Unknown channel: use audit, dead_letters or streams, separated by commas."})
	}
	wanted.channels = found
	if len(faults) > 0 {
		return wish{}, problem.Validation(faults...)
	}
	return wanted, nil
}

// permit fails unless the identity may listen to all channels.
func permit(identity token.Identity, channels []realtime.Channel) error {
	for _, c := range channels {
		if err := web.Require(identity, c.Roles()...); err != nil {
			return err
		}
	}
	return nil
}

// originAllowed reports whether a script of the request's origin may open a WebSocket, which
// CORS does not keep it from. Programs that are no browsers send no origin.
func (rt *realtimeRoutes) originAllowed(r *http.Request) bool {
	origins := r.Header.Values("Origin")
	if len(origins) == 0 {
		return true
	}
	if len(origins) > 1 {
		return false
	}
	if slices.Contains(rt.cors, origins[0]) {
		return true
	}
	origin, err := url.Parse(origins[0])
	if err != nil || origin.Host == "" || origin.Scheme != "http" && origin.Scheme != "https" {
		return false
	}
	if rt.PublicURL == "" {
		return strings.EqualFold(origin.Host, r.Host)
	}
	public, err := url.Parse(rt.PublicURL)
	return err == nil && origin.Scheme == public.Scheme && strings.EqualFold(origin.Host, public.Host)
}

// closingOf returns how a connection closes because of an error that its client may see; nil
// for any other error.
func closingOf(err error) *realtime.Closing {
	p := problem.From(err)
	if p.Kind == problem.Unauthenticated {
		return &realtime.Closing{Code: realtime.CodeEnded, Reason: p.Code}
	}
	if p.Kind == problem.Forbidden {
		return &realtime.Closing{Code: realtime.CodeForbidden, Reason: p.Code}
	}
	return nil
}

// networkOf returns the network by which a client is counted.
func networkOf(r *http.Request) string { return event.OriginFrom(r.Context()).Network() }

// pump writes the messages of a connection until it has to close, its client has gone, or a
// write fails. It returns why it has to close, or nil.
func pump(c *realtime.Conn, gone <-chan struct{}, beat func(), every time.Duration, write func(*realtime.Message) error) *realtime.Closing {
	send := func(m *realtime.Message) bool {
		if c.Why() != nil { // What has ended gets nothing more.
			return false
		}
		err := write(m)
		if errors.Is(err, context.DeadlineExceeded) || isTimeout(err) {
			c.TimedOut("too_slow")
		}
		return err == nil
	}
	for _, m := range c.Backlog() {
		if !send(m) {
			return c.Why()
		}
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-c.Done():
			return c.Why()
		case <-gone:
			return nil
		case <-tick.C:
			beat()
		case m := <-c.Messages():
			if !send(m) {
				return c.Why()
			}
		}
	}
}
