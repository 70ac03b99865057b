package bus

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
)

// errStopped says that the consumer was stopped before the message was settled.
var errStopped = errors.New("consumer stopped")

const (
	firstProbe   = 500 * time.Millisecond
	longestProbe = 10 * time.Second
)

// hold lets messages wait while a dependency is away, for as long as it is. One
// of them probes at growing intervals; when it gets through, all go on. They
// keep their place in the window, so reading stops by itself, and what is not
// read yet waits in Redis. Attempts are not consumed.
//
// A message that finds a dependency away while others succeed, at every try for
// HoldLimit, has failed by itself. The limit is long because a success proves
// little: the message may have been one that needs no dependency.
func (c *Consumer) hold(stop context.Context) message.HandlerMiddleware {
	return func(next message.HandlerFunc) message.HandlerFunc {
		return func(m *message.Message) ([]*message.Message, error) {
			var alone time.Time // since when the others succeed
			seen := int64(-1)   // successes of all, when this one failed last
			for pause := firstProbe; ; {
				pass, ok := c.gate.enter(stop)
				if !ok {
					return nil, errStopped
				}
				out, err := next(m)
				if err == nil || !c.cfg.Unavailable(err) {
					if held := c.gate.succeed(pass); held > 0 {
						c.cfg.Log.InfoContext(stop, "dependency is back", "topic", string(c.cfg.Topic), "held_ms", held.Milliseconds())
					}
					return out, err
				}
				c.handled.WithLabelValues(string(c.cfg.Topic), c.label(openedOf(m).event.Name), "held").Inc()
				others, told, successes := c.gate.fail(pass, seen)
				seen = successes
				c.sayHeld(m, err, told) //nolint:contextcheck // The message has a context of its own, as all of Watermill's have.
				if !others {
					alone, pause = time.Time{}, firstProbe
					continue
				}
				if alone.IsZero() {
					alone = time.Now()
				}
				if time.Since(alone) > c.cfg.HoldLimit {
					c.note(m, "message", err)
					return out, err
				}
				if !wait(stop, pause) {
					return nil, errStopped
				}
				pause = min(2*pause, longestProbe)
			}
		}
	}
}

// sayHeld warns once of an outage, not once for each message in flight.
func (c *Consumer) sayHeld(m *message.Message, err error, told bool) {
	level := slog.LevelWarn
	if told {
		level = slog.LevelDebug
	}
	c.cfg.Log.Log(m.Context(), level, "event waits for a dependency", "event", openedOf(m).event.Name, "event_id", m.UUID,
		"topic", string(c.cfg.Topic), "error", err.Error())
}

// gate is open until a dependency is found away, and then lets one probe at a
// time pass.
type gate struct {
	mu        sync.Mutex
	opened    chan struct{} // closed when the gate opens; nil while it is open
	pause     time.Duration
	since     time.Time // it is closed
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

// succeed opens the gate. It returns how long that was closed, 0 if it was open.
func (g *gate) succeed(p pass) (held time.Duration) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if p.probe {
		g.probing = false
	}
	g.successes++
	if g.opened == nil {
		return 0
	}
	close(g.opened)
	g.opened = nil
	return time.Since(g.since)
}

// fail closes the gate, unless others have succeeded since the message failed
// before; seen is what fail returned as successes then, -1 at first. told says that
// somebody else has found the same out.
func (g *gate) fail(p pass, seen int64) (others, told bool, successes int64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if p.probe {
		g.probing = false
	}
	if seen < 0 {
		seen = p.successes
	}
	if g.successes > seen {
		return true, false, g.successes
	}
	switch {
	case g.opened == nil:
		g.opened = make(chan struct{})
		g.pause, g.since = firstProbe, time.Now()
	case p.probe:
		g.pause = min(2*g.pause, longestProbe)
	default:
		told = true
	}
	g.next = time.Now().Add(g.pause)
	return false, told, g.successes
}

func (g *gate) waiting() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.opened == nil {
		return 0
	}
	return g.held
}
