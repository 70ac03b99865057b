package upstream

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/sony/gobreaker/v2"
)

const (
	probeEvery   = time.Second
	probeTimeout = time.Second
)

// Run implements service.Runner: until ctx ends it probes the readiness of every address,
// connects to the unreachable ones and closes connections that have been idle for too long.
func (s *Service) Run(ctx context.Context) error {
	var watches sync.WaitGroup
	for _, a := range s.addresses {
		watches.Go(func() { a.watch(ctx) })
	}
	watches.Wait()
	return nil
}

func (a *address) watch(ctx context.Context) {
	defer func() { a.closeIdle(time.Now()) }()
	tick := time.NewTicker(probeEvery)
	defer tick.Stop()
	for {
		a.probe(ctx)
		select {
		case <-ctx.Done():
			return
		case <-a.doubted:
			a.reconnect(ctx)
		case <-tick.C:
		}
	}
}

// The results of a probe.
const (
	unknown int32 = iota
	up
	down
)

func (a *address) probe(ctx context.Context) {
	err := askReady(ctx, a)
	if ctx.Err() != nil {
		return
	}
	found, unused := up, time.Now().Add(-keepIdle)
	if err != nil {
		found, unused = down, time.Now() // Before a service that stops closes them, perhaps as a request is on its way.
	}
	switch was := a.state.Swap(found); {
	case was == up && found == down:
		a.log.WarnContext(ctx, "service not ready", "error", err.Error())
	case was == down && found == up:
		a.log.InfoContext(ctx, "service ready")
	}
	a.closeIdle(unused)
}

// test tests the address unless its breaker is closed. A request whose body is streamed must
// not be the test itself: its client would decide how long all others wait for the result. An
// open breaker refuses the test, unless it becomes half-open just then.
func (a *address) test(ctx context.Context) error {
	if a.breakerState() == gobreaker.StateClosed {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	res, err := a.execute(func() (*http.Response, error) { return a.getReady(ctx) })
	if err != nil {
		return err
	}
	return res.Body.Close()
}

func (a *address) getReady(ctx context.Context) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, a.url.JoinPath("readyz").String(), http.NoBody)
	if err != nil {
		return nil, fmt.Errorf("probe readiness: %w", err)
	}
	res, err := a.roundTrip(req, Edit{})
	if err != nil {
		return nil, fmt.Errorf("probe readiness: %w", err)
	}
	return res, nil
}

func askReady(ctx context.Context, a *address) error {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	res, err := a.getReady(ctx)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if _, err := io.Copy(io.Discard, io.LimitReader(res.Body, maxHeaderBytes)); err != nil {
		return fmt.Errorf("probe readiness: %w", err)
	}
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("probe readiness: %s", res.Status)
	}
	return nil
}

// Probed returns an error until every address was probed once, whatever the result. Before,
// the gateway would report services as down that it has not asked yet.
func (s *Service) Probed(context.Context) error {
	if slices.ContainsFunc(s.addresses, func(a *address) bool { return a.state.Load() == unknown }) {
		return errors.New("not probed yet")
	}
	return nil
}

// Up reports whether any address of the service was ready at its last probe.
func (s *Service) Up() bool {
	return slices.ContainsFunc(s.addresses, func(a *address) bool { return a.state.Load() == up })
}
