package realtime_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/headgate/headgate/services/gateway/internal/realtime"
)

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
