package realtime

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/headgate/headgate/pkg/token"
)

const (
	sweepEvery  = 250 * time.Millisecond
	sourceEvery = 5 * time.Second
	// reconnectsPerSecond is how fast the clients of a gateway that stops should arrive at
	// the others.
	reconnectsPerSecond         = 500
	leastSpread, greatestSpread = time.Second, 30 * time.Second
)

// Runner is a part that the hub runs.
type Runner interface {
	Run(ctx context.Context) error
}

// Run implements service.Runner: it runs the followers, closes the connections whose sessions
// have ended, and looks after what the hub knows of Redis.
func (h *Hub) Run(ctx context.Context) error {
	var running sync.WaitGroup
	defer running.Wait()
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	running.Go(func() { every(ctx, sweepEvery, h.sweep) })
	for h.ask(ctx); !h.knowsEpoch(); h.ask(ctx) {
		select { // The ids of messages need the epoch.
		case <-ctx.Done():
			return nil
		case <-time.After(sweepEvery):
		}
	}
	failed := make(chan error, len(h.cfg.Followers))
	for _, follower := range h.cfg.Followers {
		running.Go(func() {
			failed <- follower(h).Run(ctx)
			stop() // A hub that does not follow a stream must not go on.
		})
	}
	every(ctx, sourceEvery, func() { h.ask(ctx) })
	var faults []error
	for range h.cfg.Followers {
		faults = append(faults, <-failed)
	}
	return errors.Join(faults...)
}

// every calls f at an interval until ctx ends.
func every(ctx context.Context, interval time.Duration, f func()) {
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			f()
		}
	}
}

// sweep closes the connections whose sessions have ended. It asks for each of them, so nothing
// is missed, however a session has ended.
func (h *Hub) sweep() {
	h.mu.Lock()
	all := make([]*Conn, 0, len(h.conns))
	for c := range h.conns {
		all = append(all, c)
	}
	h.mu.Unlock()
	for _, c := range all {
		err := h.cfg.Ended(c.client.Session)
		switch {
		case err == nil:
		case errors.Is(err, token.ErrExpired):
			c.end(&Closing{Code: CodeEnded, Reason: "token_expired"})
		default:
			c.end(&Closing{Code: CodeEnded, Reason: "session_revoked"})
		}
	}
}

func (h *Hub) knowsEpoch() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.epoch != ""
}

// ask asks Redis for the epoch and, if somebody wants to know, for the lag. While Redis is
// unavailable, which its client logs, connections stay as they are.
func (h *Hub) ask(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, sourceEvery)
	defer cancel()
	epoch, err := h.cfg.Source.Epoch(ctx)
	if err != nil {
		h.cfg.Log.DebugContext(ctx, "epoch of real-time events unknown; retrying", "error", err.Error())
		return
	}
	h.setEpoch(ctx, epoch)
	if !h.wanted(Streams) {
		return
	}
	lags, err := h.cfg.Source.Lags(ctx)
	if err != nil {
		h.cfg.Log.DebugContext(ctx, "lag of streams unknown; retrying", "error", err.Error())
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	to := audience{channel: Streams}
	h.deliver(translation{to: to}, h.control(fact{kind: typeLag, data: lagging{lags}}))
}

func (h *Hub) setEpoch(ctx context.Context, epoch string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.epoch == epoch {
		return
	}
	lost := h.epoch != ""
	h.epoch = epoch
	if lost {
		h.cfg.Log.WarnContext(ctx, "redis lost its data; clients have to reload their state")
		h.interrupt()
	}
}

func (h *Hub) wanted(c Channel) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.to[audience{channel: c}]) > 0
}

// Drain refuses new clients, closes all connections with the advice when to connect again, and
// waits until their owners have gone or ctx ends. The advice differs, so that they do not
// arrive elsewhere all at once.
func (h *Hub) Drain(ctx context.Context) error {
	h.mu.Lock()
	left := make(chan struct{})
	h.draining = left
	if h.entered == 0 {
		close(left)
	}
	spread := min(max(time.Duration(len(h.conns))*time.Second/reconnectsPerSecond, leastSpread), greatestSpread)
	for c := range h.conns {
		//nolint:gosec // Jitter is not a secret.
		c.end(&Closing{Code: CodeRestart, Reason: "restarting", Reconnect: rand.N(spread)})
	}
	h.mu.Unlock()
	select {
	case <-left:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("close real-time connections: %w", ctx.Err())
	}
}
