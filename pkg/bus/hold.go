package bus

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
)

// errStopped says that the consumer was stopped before the message was settled.
var errStopped = errors.New("consumer stopped")

const (
	firstProbe   = 500 * time.Millisecond
	longestProbe = 10 * time.Second
	// aloneLimit is how often a message may find a dependency away which the others
	// find there, until that counts as the message's own fault.
	aloneLimit = 5
)

// hold lets messages wait while a dependency is away, for as long as it is. One
// of them probes at growing intervals; when it gets through, all go on. They
// keep their place in the window, so reading stops by itself, and what is not
// read yet waits in Redis. Attempts are not consumed.
func (c *Consumer) hold(stop context.Context) message.HandlerMiddleware {
	return func(next message.HandlerFunc) message.HandlerFunc {
		return func(m *message.Message) ([]*message.Message, error) {
			for alone := 0; ; {
				pass, ok := c.gate.enter(stop)
				if !ok {
					return nil, errStopped
				}
				out, err := next(m)
				if err == nil || !c.cfg.Unavailable(err) {
					c.gate.leave(pass, true)
					return out, err
				}
				c.handled.WithLabelValues(string(c.cfg.Topic), c.label(openedOf(m).event.Name), "held").Inc()
				others := c.gate.leave(pass, false)
				//nolint:contextcheck // The message has a context of its own, as all of Watermill's have.
				c.cfg.Log.WarnContext(m.Context(), "event waits for a dependency", "event", openedOf(m).event.Name, "event_id", m.UUID,
					"topic", string(c.cfg.Topic), "error", err.Error())
				if !others {
					continue
				}
				if alone++; alone >= aloneLimit {
					c.note(m, "message", err)
					return out, err
				}
				if !wait(stop, min(firstProbe<<alone, longestProbe)) {
					return nil, errStopped
				}
			}
		}
	}
}

// gate is open until a dependency is found away, and then lets one probe at a
// time pass.
type gate struct {
	mu        sync.Mutex
	opened    chan struct{} // closed when the gate opens; nil while it is open
	pause     time.Duration
	next      time.Time // of the next probe
	probing   bool
	successes int64
	held      int
}

func newGate() *gate { return &gate{} }

// pass is what a message needs to report how it fared.
type pass struct {
	probe     bool
	successes int64 // of all messages, when it entered
}

// enter waits until the gate is open or it is the caller's turn to probe. It
// returns false if stop ended first.
func (g *gate) enter(stop context.Context) (pass, bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.held++
	defer func() { g.held-- }()
	for {
		if stop.Err() != nil {
			return pass{}, false
		}
		if g.opened == nil {
			return pass{successes: g.successes}, true
		}
		if !g.probing && !time.Now().Before(g.next) {
			g.probing = true
			return pass{probe: true, successes: g.successes}, true
		}
		opened, pause := g.opened, max(time.Until(g.next), firstProbe/10)
		g.mu.Unlock()
		timer := time.NewTimer(pause)
		select {
		case <-stop.Done():
		case <-opened:
		case <-timer.C:
		}
		timer.Stop()
		g.mu.Lock()
	}
}

// leave reports how it went. After a failure it returns whether other messages
// succeeded meanwhile: then the gate stays as it is.
func (g *gate) leave(p pass, success bool) (others bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if p.probe {
		g.probing = false
	}
	if success {
		g.successes++
		if g.opened != nil {
			close(g.opened)
			g.opened = nil
		}
		return false
	}
	if g.successes != p.successes {
		return true
	}
	switch {
	case g.opened == nil:
		g.opened = make(chan struct{})
		g.pause = firstProbe
	case p.probe:
		g.pause = min(2*g.pause, longestProbe)
	}
	g.next = time.Now().Add(g.pause)
	return false
}

func (g *gate) waiting() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.opened == nil {
		return 0
	}
	return g.held
}
