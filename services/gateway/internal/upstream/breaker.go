package upstream

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/sony/gobreaker/v2"
)

// maxFailures in a row open the circuit breaker of an address, for openTimeout.
const (
	maxFailures = 5
	openTimeout = time.Second
)

// renewBreaker gives the address a circuit breaker that has counted no failures.
func (a *address) renewBreaker() {
	var breaker *gobreaker.CircuitBreaker[*http.Response]
	breaker = gobreaker.NewCircuitBreaker[*http.Response](gobreaker.Settings{ //nolint:bodyclose // There is no response yet.
		Name: a.url.Host, Timeout: openTimeout,
		ReadyToTrip: func(c gobreaker.Counts) bool { return c.ConsecutiveFailures >= maxFailures },
		IsExcluded:  func(err error) bool { return causedByClient(err) || unreachable(err) },
		OnStateChange: func(_ string, _, to gobreaker.State) {
			if a.breaker.Load() == breaker { //nolint:bodyclose // There is no response.
				a.breakerChanged(to) // The last requests to the process before count for nothing.
			}
		},
	})
	old := a.breaker.Swap(breaker) //nolint:bodyclose // There is no response.
	if old != nil && old.State() != gobreaker.StateClosed {
		a.breakerChanged(gobreaker.StateClosed)
	}
}

func (a *address) breakerChanged(to gobreaker.State) {
	switch to {
	case gobreaker.StateOpen:
		a.log.Warn("circuit breaker opened", "failures", maxFailures)
		a.check() // The process may have ended.
	case gobreaker.StateClosed:
		a.log.Info("circuit breaker closed")
	case gobreaker.StateHalfOpen:
	}
	a.breakerGauge.Set(float64(to))
}

func (a *address) breakerState() gobreaker.State {
	return a.breaker.Load().State() //nolint:bodyclose // There is no response.
}

// causedByClient reports whether a request failed for a reason that says nothing about the
// service. If it counted, one client could open the circuit breaker for all.
func causedByClient(err error) bool {
	_, body := errors.AsType[BodyError](err)
	return body || errors.Is(err, context.Canceled) || errors.Is(err, errSilentClient)
}

// execute sends a request with send, unless the circuit breaker is open.
func (a *address) execute(send func() (*http.Response, error)) (*http.Response, error) {
	res, err := a.breaker.Load().Execute(send)
	switch {
	case errors.Is(err, gobreaker.ErrOpenState), errors.Is(err, gobreaker.ErrTooManyRequests):
		if a.lost.Load() != nil {
			err = errors.Join(errUnreachable, err)
		}
		return nil, errors.Join(ErrUnavailable, err)
	case unreachable(err):
		return nil, errors.Join(ErrUnavailable, err)
	}
	return res, err
}
