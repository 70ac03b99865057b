package api

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"sync"
	"time"

	"github.com/headgate/headgate/pkg/problem"
	"github.com/headgate/headgate/pkg/web"
	"github.com/headgate/headgate/services/gateway/internal/realtime"
)

var eventsParameters = web.Takes("channels")

// How long a client waits before it connects again, at least and at most.
const leastRetry, greatestRetry = time.Second, 4 * time.Second

// events serves real-time events as server-sent events (HTML, 9.2). The stream ends with an
// event that says why, where a WebSocket has a close code.
func (rt *realtimeRoutes) events(w http.ResponseWriter, r *http.Request) error {
	_, identity, session, err := rt.authenticate(w, r, eventsPath)
	if err != nil {
		return err
	}
	query, err := eventsParameters.Read(r)
	if err != nil {
		return err
	}
	wanted, err := readWish(lastEventIDHeader, r.Header.Get(lastEventIDHeader), query["channels"])
	if err != nil {
		return err
	}
	if len(r.Header.Values(lastEventIDHeader)) > 1 {
		return problem.Validation(problem.Field{Field: lastEventIDHeader, Code: "repeated", Message: "Repeated header: send it once."})
	}
	if err := permit(identity, wanted.channels); err != nil {
		return err
	}
	h := w.Header()
	if r.Method == http.MethodHead {
		h.Set("Content-Type", eventStreamType)
		return nil
	}
	leave, err := rt.Hub.Enter(networkOf(r))
	if err != nil {
		return err
	}
	defer leave()
	conn, err := rt.Hub.Open(r.Context(), realtime.Client{
		Identity: identity, Session: session, Transport: "sse", Channels: wanted.channels, After: wanted.after,
	})
	if err != nil {
		web.Challenge(h, err)
		return err
	}
	defer conn.Close()
	h.Set("Content-Type", eventStreamType)
	h.Set("X-Accel-Buffering", "no") // nginx would wait for more.
	web.SetStreaming(r.Context())
	rt.serveEvents(r.Context(), w, conn)
	return nil
}

const eventStreamType = "text/event-stream; charset=utf-8"

// serveEvents writes messages until the connection has to close.
func (rt *realtimeRoutes) serveEvents(ctx context.Context, w http.ResponseWriter, conn *realtime.Conn) {
	control := http.NewResponseController(w)

	// A write that is blocked must not keep a connection open that has to close.
	var deadlines sync.Mutex
	closing := false
	extend := func() {
		deadlines.Lock()
		defer deadlines.Unlock()
		if !closing {
			_ = control.SetWriteDeadline(time.Now().Add(rt.AnswerTimeout))
		}
	}
	var ending sync.WaitGroup
	ending.Add(1)
	stop := conn.WhenDone(func() {
		defer ending.Done()
		deadlines.Lock()
		defer deadlines.Unlock()
		closing = true
		_ = control.SetWriteDeadline(time.Now().Add(closeTimeout))
	})
	defer func() {
		if stop() {
			ending.Done()
		}
		ending.Wait() // The response must not be touched after it has ended.
	}()
	write := func(text string) error {
		extend()
		if _, err := io.WriteString(w, text); err != nil { //nolint:gosec // It is JSON in an event stream, which no browser renders.
			return err
		}
		return control.Flush()
	}
	//nolint:gosec // Jitter is not a secret.
	if write(fmt.Sprintf("retry: %d\n\n", (leastRetry+rand.N(greatestRetry-leastRetry)).Milliseconds())) != nil {
		return
	}
	why := pump(conn, ctx.Done(), conn.Heartbeat, rt.Heartbeat, func(m *realtime.Message) error { return write(serverSent(m)) })
	if why != nil {
		_ = write(fmt.Sprintf("retry: %d\n%s", max(leastRetry, why.Reconnect).Milliseconds(), serverSent(conn.ClosingMessage(why)))) // The client may have gone.
	}
}

// serverSent returns a message in the format of an event stream. A heartbeat is a comment with
// an id: the client remembers the id and shows nothing to its application.
func serverSent(m *realtime.Message) string {
	if m.Heartbeat() {
		return ": heartbeat\nid: " + m.ID + "\n\n"
	}
	return "event: " + m.Type + "\nid: " + m.ID + "\ndata: " + string(m.JSON) + "\n\n"
}
