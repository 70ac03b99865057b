// Package upstream sends requests from the gateway to the services: it picks an address
// and a connection for each, and keeps a circuit breaker for every address. It knows no
// routes.
package upstream

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/headgate/headgate/pkg/problem"
)

// The errors of requests that were not sent to any address.
var (
	ErrUnavailable = problem.New(problem.Unavailable, "service_unavailable", "The service is temporarily unavailable. Try again later.").WithRetryAfter(openTimeout)
	ErrOverloaded  = problem.New(problem.Unavailable, "service_overloaded", "The service is overloaded. Try again later.").WithRetryAfter(time.Second)
	ErrTooMany     = problem.New(problem.TooManyRequests, "too_many_concurrent_requests", "Too many of your requests are in progress. Wait for some of them to finish, then retry.").WithRetryAfter(time.Second)
)

// Options are common to all services.
type Options struct {
	Timeout       time.Duration // for a response to begin, once the request is sent
	Stall         time.Duration // between two reads of its body, or two writes of the request's
	Wait          time.Duration // for an address that accepts connections, from when there was none
	MaxInFlight   int           // concurrent requests per address of a service
	MaxPerUser    int           // of those, from one signed-in user; 0 is no limit
	MaxPerNetwork int           // of those, from one network; 0 is no limit
	TLS           *tls.Config   // for https addresses; nil uses the roots of the system
	Log           *slog.Logger
	Metrics       *Metrics
}

// Service sends requests to one service, at one or more addresses. It is an
// http.RoundTripper that sets scheme and host of the URL. It is safe for concurrent use,
// and its Run must be running.
type Service struct {
	name      string
	addresses []*address
	next      atomic.Uint64
	o         Options
	duration  prometheus.Observer
	waiting   prometheus.Gauge

	mu    sync.Mutex
	found chan struct{} // closed, and replaced, when an address is reachable again
}

// New returns the service at the addresses.
func New(name string, addresses []*url.URL, o Options) *Service {
	s := &Service{name: name, o: o, duration: o.Metrics.duration.WithLabelValues(name), waiting: o.Metrics.waiting.WithLabelValues(name), found: make(chan struct{})}
	for _, u := range addresses {
		s.addresses = append(s.addresses, newAddress(name, u, o, s.announce))
	}
	return s
}

// RoundTrip implements http.RoundTripper as Do, for the gateway's own requests.
func (s *Service) RoundTrip(req *http.Request) (*http.Response, error) {
	return s.Do(req, Edit{}, Client{})
}

// Do sends the request of a client with its header edited, and returns the response as soon
// as its header has arrived. If an address accepts no connections, Do tries the next one; if
// none does, Do waits for the first that does, see Options.Wait. It never sends a request twice
// that a service may have read, unless it is GET or HEAD.
// Responses of status 1xx are dropped. If req asks for another protocol and the service
// switches to it, the body of the response is an io.ReadWriteCloser. Do fails with
// ErrUnavailable, ErrOverloaded, ErrTooMany, a BodyError, the context's error, or an error of
// the network or the service.
func (s *Service) Do(req *http.Request, edit Edit, from Client) (*http.Response, error) {
	began := time.Now()
	defer func() { s.duration.Observe(time.Since(began).Seconds()) }()
	if hasBody(req) {
		req.Header, edit = edit.Apply(req.Header), Edit{}
	}
	for {
		found := s.nextFound()
		res, faults := s.try(req, edit, from)
		if res != nil {
			return res, nil
		}
		err := fmt.Errorf("send to %s: %w", s.name, errors.Join(faults...))
		if slices.ContainsFunc(faults, func(fault error) bool { return !unreachable(fault) }) {
			return nil, err
		}
		again, fault := s.await(req.Context(), found, began.Add(s.o.Wait), from)
		if again {
			fault = rewind(req)
		}
		if !again || fault != nil {
			return nil, errors.Join(fault, err)
		}
	}
}

// try sends the request to one address after another, until one of them may have read it. It
// returns the error of each address that it has tried, or the response.
func (s *Service) try(req *http.Request, edit Edit, from Client) (*http.Response, []error) {
	var tried []*address
	var faults []error
	for len(tried) < len(s.addresses) {
		a := s.pick(tried)
		tried = append(tried, a)
		res, err := s.send(a, req, edit, from)
		if err == nil {
			return res, nil
		}
		faults = append(faults, err)
		if !tryNextAddress(err) || req.Context().Err() != nil {
			break
		}
	}
	return nil, faults
}

// tryNextAddress reports whether a request that failed with err may go to another address.
func tryNextAddress(err error) bool {
	_, notSent := errors.AsType[notSentError](err)
	return notSent || errors.Is(err, ErrUnavailable) || errors.Is(err, ErrOverloaded) || errors.Is(err, ErrTooMany)
}

// pick returns the usable address with the fewest requests in flight, in turn among
// equals. Addresses that are down come last, but are used: a probe may be wrong.
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

// send counts the request as in flight until it has failed, or the body of its response is
// closed.
func (s *Service) send(a *address, req *http.Request, edit Edit, from Client) (*http.Response, error) {
	if err := a.begin(s.o.MaxInFlight, from); err != nil {
		return nil, err
	}
	more := false // Whether the response's body counts on.
	defer func() {
		if !more {
			a.end(from)
		}
	}()
	if streams(req) {
		if err := a.test(req.Context()); err != nil {
			return nil, err
		}
	}
	req.URL.Scheme, req.URL.Host = a.url.Scheme, a.url.Host
	res, err := a.execute(func() (*http.Response, error) { return a.roundTrip(req, edit) })
	if err == nil && res.Body != http.NoBody {
		more = true
		res.Body = counted(res.Body, func() { a.end(from) })
	}
	return res, err
}

// counted returns body with done called when it is closed. The body of an upgraded
// connection stays writable.
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
