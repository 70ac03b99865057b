// Package upstream is the way from the gateway to the services: which address
// takes a request, over which connection, and when a service that fails is left
// alone. It knows no routes.
package upstream

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"net/url"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/sony/gobreaker/v2"

	"github.com/headgate/headgate/pkg/problem"
)

// The ways in which a service cannot be asked at all.
var (
	ErrAway       = problem.New(problem.Unavailable, "service_unavailable", "The service behind this address is not available at the moment.").WithRetryAfter(breather)
	ErrOverloaded = problem.New(problem.Unavailable, "service_overloaded", "The service behind this address has too much to do at the moment.").WithRetryAfter(time.Second)
)

const (
	probeEvery   = time.Second
	probeTimeout = time.Second
)

// Options are what the ways to all services have in common.
type Options struct {
	Timeout     time.Duration // for an answer to begin, once the request is sent
	Stall       time.Duration // between two pieces of its body; not observed by the standard transport
	MaxInFlight int           // requests at a time for each address of a service
	Standard    bool          // use net/http's Transport for everything
	Log         *slog.Logger
	Metrics     *Metrics
}

// Service is the way to one service, at one or more addresses. It is an
// http.RoundTripper: it sets scheme and host of the URL. It is safe for concurrent
// use, and Run must run.
type Service struct {
	name      string
	addresses []*address
	next      atomic.Uint64
	o         Options
	standard  bool // Does an address use net/http's Transport?
	probes    *http.Client
	wait      prometheus.Observer
}

// New returns the way to the service at the addresses.
func New(name string, addresses []*url.URL, o Options) *Service {
	s := &Service{name: name, o: o, wait: o.Metrics.wait.WithLabelValues(name), probes: &http.Client{
		Timeout:       probeTimeout,
		Transport:     &http.Transport{MaxIdleConnsPerHost: 1, IdleConnTimeout: keepIdle},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
	for _, u := range addresses {
		a := newAddress(u, o, s.breakerChanged)
		s.addresses, s.standard = append(s.addresses, a), s.standard || a.always
		o.Metrics.breaker.WithLabelValues(name, u.Host).Set(0)
	}
	return s
}

func (s *Service) breakerChanged(a *address, to gobreaker.State) {
	log := s.o.Log.With("upstream", s.name, "address", a.url.Host)
	switch to {
	case gobreaker.StateOpen:
		log.Warn("service is left alone for a moment: it failed several times in a row")
	case gobreaker.StateClosed:
		log.Info("service answers again")
	case gobreaker.StateHalfOpen:
	}
	s.o.Metrics.breaker.WithLabelValues(s.name, a.url.Host).Set(float64(to))
}

// Informational is told of answers of status 1xx, before the final one.
type Informational func(status int, header http.Header)

// trace returns req so that net/http's Transport tells i.
func (i Informational) trace(req *http.Request) *http.Request {
	return req.WithContext(httptrace.WithClientTrace(req.Context(), &httptrace.ClientTrace{
		Got1xxResponse: func(status int, header textproto.MIMEHeader) error {
			i(status, http.Header(header))
			return nil
		},
	}))
}

// RoundTrip implements http.RoundTripper as Do; answers of status 1xx are passed over.
func (s *Service) RoundTrip(req *http.Request) (*http.Response, error) {
	return s.Do(req, Edit{}, func(int, http.Header) {})
}

// Do sends req with its header edited and returns the answer as soon as its header is there. A request goes
// to another address if the first one could not be connected to. Nothing that may have
// been read is sent twice, unless it is GET or HEAD. It fails with ErrAway,
// ErrOverloaded, the context's error, or what the network or the service did wrong.
func (s *Service) Do(req *http.Request, edit Edit, informational Informational) (*http.Response, error) {
	began := time.Now()
	defer func() { s.wait.Observe(time.Since(began).Seconds()) }()
	if hasBody(req) || s.standard {
		req.Header, edit = edit.Apply(req.Header), Edit{}
	}
	var tried []*address
	var faults []error
	for len(tried) < len(s.addresses) {
		a := s.pick(tried)
		tried = append(tried, a)
		res, err := s.ask(a, req, edit, informational)
		if err == nil {
			return res, nil
		}
		faults = append(faults, err)
		if !elsewhere(err) || req.Context().Err() != nil {
			break
		}
	}
	return nil, fmt.Errorf("ask %s: %w", s.name, errors.Join(faults...))
}

// elsewhere reports whether another address may take a request that failed with err.
func elsewhere(err error) bool {
	_, notSent := errors.AsType[notSentError](err)
	return notSent || errors.Is(err, ErrAway) || errors.Is(err, ErrOverloaded)
}

// pick returns the address with the fewest requests among those that are up, in
// turn among equals. Those that are down come last: a probe may be wrong.
func (s *Service) pick(tried []*address) *address {
	if len(s.addresses) == 1 {
		return s.addresses[0]
	}
	var best *address
	from := s.next.Add(1)
	for i := range s.addresses {
		a := s.addresses[(from+uint64(i))%uint64(len(s.addresses))]
		if !slices.Contains(tried, a) && (best == nil || a.better(best)) {
			best = a
		}
	}
	return best
}

func (s *Service) ask(a *address, req *http.Request, edit Edit, informational Informational) (*http.Response, error) {
	if a.inFlight.Add(1) > int64(s.o.MaxInFlight) {
		a.inFlight.Add(-1)
		return nil, ErrOverloaded
	}
	req.URL.Scheme, req.URL.Host = a.url.Scheme, a.url.Host
	res, err := a.breaker.Execute(func() (*http.Response, error) { return a.roundTrip(req, edit, informational) })
	switch {
	case errors.Is(err, gobreaker.ErrOpenState), errors.Is(err, gobreaker.ErrTooManyRequests):
		err = errors.Join(ErrAway, err)
	case err == nil && res.Body != http.NoBody:
		res.Body = counted(res.Body, func() { a.inFlight.Add(-1) })
		return res, nil
	}
	a.inFlight.Add(-1)
	return res, err
}

// counted returns body with done to be called when it is closed. An upgraded
// connection is one of its kind and stays writable.
func counted(body io.ReadCloser, done func()) io.ReadCloser {
	b := &countedBody{ReadCloser: body, done: done}
	if rw, ok := body.(io.ReadWriteCloser); ok {
		return struct {
			io.Writer
			*countedBody
		}{rw, b}
	}
	return b
}

type countedBody struct {
	io.ReadCloser

	once sync.Once
	done func()
}

func (b *countedBody) Close() error {
	b.once.Do(b.done)
	return b.ReadCloser.Close()
}
