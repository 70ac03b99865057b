package realtime

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/headgate/headgate/pkg/token"
)

// The codes with which connections close.
const (
	CodeEnded     = 4401 // The session or the token has ended, or the ticket is invalid.
	CodeForbidden = 4403 // The origin or a channel is not allowed.
	CodeTimeout   = 4408 // The client did not answer, or did not read fast enough.
	CodeRestart   = 1012 // The gateway stops (RFC 6455 registry: service restart).
)

// HeartbeatEvery is how often a client gets a heartbeat at least.
const HeartbeatEvery = 25 * time.Second

// queueLimit is how many messages wait for a client.
const queueLimit = 64

// Closing is why a connection closes.
type Closing struct {
	Code      int
	Reason    string
	Reconnect time.Duration // how long the client should wait before it connects again
}

// closedError is the cause with which the context of a connection ends.
type closedError struct{ why *Closing }

// Error implements error.
func (c closedError) Error() string {
	return fmt.Sprintf("connection closes: %d %s", c.why.Code, c.why.Reason)
}

// Client is who connects.
type Client struct {
	Identity  token.Identity
	Session   token.Session
	Transport string // websocket or sse, for the metrics
	Channels  []Channel
	After     *Position // what the client has seen; nil if it has seen nothing
}

// Conn is the connection of a client. Its owner writes what Next returns, until that fails, and
// closes it.
type Conn struct {
	hub     *Hub
	client  Client
	to      []audience
	backlog []*Message
	queue   chan *Message
	ctx     context.Context
	cancel  context.CancelCauseFunc
}

// WhenDone calls f in a goroutine when the connection has to close, or its owner has closed it.
// The result keeps f from being called, and reports whether it did; see context.AfterFunc.
func (c *Conn) WhenDone(f func()) (stop func() bool) { return context.AfterFunc(c.ctx, f) }

// Done is closed when the connection has to close; Why then says the reason.
func (c *Conn) Done() <-chan struct{} { return c.ctx.Done() }

// Why returns why the connection closes, or nil if its owner has closed it.
func (c *Conn) Why() *Closing {
	closed, _ := errors.AsType[closedError](context.Cause(c.ctx))
	return closed.why
}

// Backlog returns what the client gets before Messages: what it has missed, and the message
// that says that it is connected.
func (c *Conn) Backlog() []*Message { return c.backlog }

// Messages returns the messages for the client, in their order.
func (c *Conn) Messages() <-chan *Message { return c.queue }

// push queues a message. A client that is too slow loses its connection, and none of the
// others waits for it. The hub is locked.
func (c *Conn) push(m *Message) {
	if c.ctx.Err() != nil { // What has ended gets nothing more.
		return
	}
	select {
	case c.queue <- m:
	default:
		c.end(&Closing{Code: CodeTimeout, Reason: "too_slow"})
	}
}

// end closes the connection, for the first reason that it gets.
func (c *Conn) end(why *Closing) { c.cancel(closedError{why}) }

// TimedOut says that the client did not answer or read in time.
func (c *Conn) TimedOut(reason string) { c.end(&Closing{Code: CodeTimeout, Reason: reason}) }

// Heartbeat queues a heartbeat behind the messages that wait, because its id says that the
// client has seen them.
func (c *Conn) Heartbeat() {
	c.hub.mu.Lock()
	defer c.hub.mu.Unlock()
	c.push(c.hub.control(fact{kind: typeHeartbeat, data: noData{}}))
}

// ClosingMessage returns the message that says why the connection closes, for a transport without
// close codes, and for a client that should wait before it connects again.
func (c *Conn) ClosingMessage(why *Closing) *Message {
	c.hub.mu.Lock()
	defer c.hub.mu.Unlock()
	return c.hub.control(fact{kind: typeClosing, data: closing{why.Code, why.Reason, why.Reconnect.Milliseconds()}})
}

// Close removes the connection from the hub.
func (c *Conn) Close() {
	c.cancel(nil)
	c.hub.remove(c)
}
