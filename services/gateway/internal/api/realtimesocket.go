package api

import (
	"bufio"
	"context"
	"encoding/base64"
	"errors"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/coder/websocket"
	"golang.org/x/net/http/httpguts"

	"github.com/headgate/headgate/pkg/problem"
	"github.com/headgate/headgate/pkg/web"
	"github.com/headgate/headgate/services/gateway/internal/realtime"
)

// errUpgrade says that a request is not a WebSocket handshake (RFC 6455, 4.2.1).
var errUpgrade = problem.New(problem.Invalid, "websocket_required", "This path accepts WebSocket handshakes (version 13) only.")

const (
	// closeTimeout is how long a connection that has to close takes to close, whatever its
	// client does.
	closeTimeout = 900 * time.Millisecond
	// socketBuffer limits what the kernel keeps for a client that does not read, in bytes.
	socketBuffer = 64 << 10
	// messageLimit is how much of a client's message is read. Clients have nothing to say.
	messageLimit = 512
)

var socketParameters = web.Takes("ticket", "lastEventId", "channels")

// socket serves real-time events over a WebSocket. A browser can read neither the status nor
// the body of a refused handshake, so what a client can do something about is said by a close
// code.
func (rt *realtimeRoutes) socket(w http.ResponseWriter, r *http.Request) error {
	if err := rt.limits.checkNetwork(w, r); err != nil {
		return err
	}
	query, err := socketParameters.Read(r)
	if err != nil {
		return err
	}
	if err := checkHandshake(r); err != nil {
		return err
	}
	wanted, err := readWish("lastEventId", query["lastEventId"], query["channels"])
	if err != nil {
		return err
	}
	leave, err := rt.Hub.Enter(networkOf(r))
	if err != nil {
		return err
	}
	defer leave()
	conn, refusal := rt.redeem(r, query["ticket"], wanted)
	var why *realtime.Closing
	if refusal != nil {
		if why = closingOf(refusal); why == nil {
			return refusal
		}
	} else {
		defer conn.Close()
	}
	writer := &hijackedWriter{ResponseWriter: w}
	socket, err := websocket.Accept(writer, r, &websocket.AcceptOptions{InsecureSkipVerify: true}) // The origin is checked.
	if err != nil {
		web.Log(r.Context()).DebugContext(r.Context(), "websocket handshake failed", "error", err.Error())
		return nil // Accept has responded.
	}
	defer socket.CloseNow() //nolint:errcheck // It is closed already, or its client has gone.
	web.SetStreaming(r.Context())
	socket.SetReadLimit(messageLimit)
	if why == nil {
		rt.serveSocket(r.Context(), socket, conn, writer.conn)
	} else {
		closeSocket(socket, writer.conn, why)
	}
	return nil
}

// closeSocket closes a WebSocket, in closeTimeout at most.
func closeSocket(socket *websocket.Conn, wire net.Conn, why *realtime.Closing) {
	_ = wire.SetDeadline(time.Now().Add(closeTimeout))
	_ = socket.Close(websocket.StatusCode(why.Code), why.Reason) // The client may have gone.
}

var errOrigin = problem.New(problem.Forbidden, "origin_not_allowed", "This origin may not open a WebSocket. Add it to CORS_ORIGINS.")

// redeem connects the client that has a ticket.
func (rt *realtimeRoutes) redeem(r *http.Request, ticket string, wanted wish) (*realtime.Conn, error) {
	if !rt.originAllowed(r) {
		return nil, errOrigin
	}
	raw, err := rt.Tickets.Redeem(r.Context(), ticket)
	if err != nil {
		return nil, err
	}
	identity, session, err := rt.Sessions.VerifySession(r.Context(), raw)
	if err != nil {
		return nil, err
	}
	web.SetUser(r.Context(), identity.UserID)
	identity = rt.StepUp.Restrict(identity)
	if err := permit(identity, wanted.channels); err != nil {
		return nil, err
	}
	return rt.Hub.Open(r.Context(), realtime.Client{
		Identity: identity, Session: session, Transport: "websocket", Channels: wanted.channels, After: wanted.after,
	})
}

// serveSocket writes messages and sends pings until it closes the WebSocket or the client has
// gone. A client that sends a message loses its connection (1008): there is nothing that it could
// ask for.
func (rt *realtimeRoutes) serveSocket(ctx context.Context, socket *websocket.Conn, conn *realtime.Conn, wire net.Conn) {
	// A write that is blocked must not keep a connection open that has to close.
	stop := conn.WhenDone(func() { _ = wire.SetDeadline(time.Now().Add(closeTimeout)) })
	defer stop()
	if buffered, ok := wire.(interface{ SetWriteBuffer(n int) error }); ok {
		_ = buffered.SetWriteBuffer(socketBuffer) // Without it, the kernel keeps more.
	}
	gone := socket.CloseRead(ctx)
	var pings sync.WaitGroup
	defer pings.Wait() // They end with the connection. To cancel one would break it off.
	ping := func() {
		conn.Heartbeat()
		pings.Go(func() {
			limited, cancel := context.WithTimeout(gone, rt.AnswerTimeout)
			defer cancel()
			if socket.Ping(limited) != nil && errors.Is(limited.Err(), context.DeadlineExceeded) {
				conn.TimedOut("no_pong")
			}
		})
	}
	write := func(m *realtime.Message) error {
		limited, cancel := context.WithTimeout(ctx, rt.AnswerTimeout)
		defer cancel()
		return socket.Write(limited, websocket.MessageText, m.JSON)
	}
	why := pump(conn, gone.Done(), ping, rt.Heartbeat, write)
	if why == nil {
		_ = socket.CloseNow() // The client has gone.
		return
	}
	if why.Reconnect > 0 {
		_ = write(conn.ClosingMessage(why)) // The client may have gone.
	}
	closeSocket(socket, wire, why)
}

// checkHandshake fails unless r is a handshake that Accept accepts, whose own errors are not in
// the envelope. A body could be taken for the other protocol (RFC 9110, 7.8).
func checkHandshake(r *http.Request) error {
	key, err := base64.StdEncoding.DecodeString(strings.TrimSpace(r.Header.Get("Sec-WebSocket-Key")))
	switch {
	case err != nil, len(key) != 16, len(r.Header.Values("Sec-WebSocket-Key")) != 1,
		r.Header.Get("Sec-WebSocket-Version") != "13",
		r.Method != http.MethodGet, !r.ProtoAtLeast(1, 1), r.ContentLength != 0,
		!httpguts.HeaderValuesContainsToken(r.Header["Connection"], "Upgrade"),
		!httpguts.HeaderValuesContainsToken(r.Header["Upgrade"], "websocket"):
		return errUpgrade
	}
	return nil
}

// hijackedWriter remembers the connection that was hijacked.
type hijackedWriter struct {
	http.ResponseWriter

	conn net.Conn
}

// Hijack implements http.Hijacker.
func (w *hijackedWriter) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, buffered, err := http.NewResponseController(w.ResponseWriter).Hijack()
	w.conn = conn
	return conn, buffered, err
}

// isTimeout reports whether a write took too long.
func isTimeout(err error) bool {
	timeout, ok := errors.AsType[net.Error](err)
	return ok && timeout.Timeout()
}
