package api

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/pkg/problem"
	"github.com/headgate/headgate/pkg/web"
)

// The failures of the services behind the gateway.
var (
	ErrBadGateway = problem.New(problem.BadGateway, "bad_gateway", "The service behind this address did not answer properly.").WithRetryAfter(time.Second)
	ErrTimeout    = problem.New(problem.Timeout, "gateway_timeout", "The service behind this address did not answer in time.").WithRetryAfter(time.Second)
)

// newTransport returns the connections to the services. Responses pass as they
// are, and no proxy of the environment is asked.
func newTransport(timeout time.Duration) *http.Transport {
	return &http.Transport{
		DialContext:           (&net.Dialer{Timeout: 2 * time.Second, KeepAlive: 15 * time.Second}).DialContext,
		MaxIdleConns:          1024,
		MaxIdleConnsPerHost:   256,
		IdleConnTimeout:       60 * time.Second,
		ResponseHeaderTimeout: timeout,
		ExpectContinueTimeout: time.Second,
		DisableCompression:    true,
	}
}

// newProxy returns the way to one service.
//
// Rewrite, not Director: with a Director the client could have the gateway's own
// headers removed by naming them in Connection (TRAPS T11).
func newProxy(target *url.URL, transport http.RoundTripper, log *slog.Logger) *httputil.ReverseProxy {
	return &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(target)
			strip(r.Out.Header)
			origin := event.OriginFrom(r.In.Context())
			r.Out.Header.Set("X-Forwarded-For", origin.IP)
			r.Out.Header.Set("X-Forwarded-Host", r.In.Host)
			r.Out.Header.Set("X-Forwarded-Proto", "http")
			if r.In.TLS != nil {
				r.Out.Header.Set("X-Forwarded-Proto", "https")
			}
			r.Out.Header.Set("X-Request-Id", origin.RequestID)
			r.Out.Header.Set("Traceparent", origin.TraceParent)
			if auth := r.In.Header.Get("Authorization"); auth != "" {
				r.Out.Header.Set("Authorization", auth) // Whatever Connection says.
			}
		},
		ModifyResponse: func(res *http.Response) error {
			// The gateway has set these on its own answer; the service's are the
			// more precise ones, and two of each would be none.
			for _, name := range []string{"Content-Security-Policy", "Referrer-Policy", "X-Content-Type-Options"} {
				if res.Header.Get(name) != "" {
					if w, ok := res.Request.Context().Value(headerKey{}).(http.Header); ok {
						w.Del(name)
					}
				}
			}
			for _, name := range []string{"X-Request-Id", "Server", "X-Powered-By"} {
				res.Header.Del(name)
			}
			return nil
		},
		Transport:    transport,
		BufferPool:   &buffers{},
		ErrorLog:     slog.NewLogLogger(log.Handler(), slog.LevelDebug),
		ErrorHandler: failed,
	}
}

// headerKey finds the header of the gateway's answer in the context of a
// proxied request.
type headerKey struct{}

// strip removes the headers by which a client could pass for somebody else, in
// every spelling that some server reads as the same.
func strip(h http.Header) {
	for name := range h {
		plain := strings.ReplaceAll(strings.ToLower(name), "_", "-")
		switch {
		case strings.HasPrefix(plain, "x-forwarded-"), strings.HasPrefix(plain, "x-user-"), strings.HasPrefix(plain, "x-internal-"),
			plain == "forwarded", plain == "x-real-ip", plain == "x-original-url", plain == "x-rewrite-url",
			plain == "x-http-method-override", plain == "x-request-id", plain == "traceparent", plain == "tracestate":
			delete(h, name)
		}
	}
}

func failed(w http.ResponseWriter, r *http.Request, err error) {
	netErr, isNet := errors.AsType[net.Error](err)
	_, tooLarge := errors.AsType[*http.MaxBytesError](err)
	switch {
	case tooLarge:
		err = problem.ErrTooLarge
	case errors.Is(err, context.Canceled) && r.Context().Err() != nil:
		// The client has gone; Fail notes it quietly.
	case errors.Is(err, context.DeadlineExceeded), isNet && netErr.Timeout():
		err = errors.Join(ErrTimeout, err)
	default:
		err = errors.Join(ErrBadGateway, err)
	}
	web.Fail(w, r, err)
}

// buffers lends the memory for copying bodies.
type buffers struct{ pool sync.Pool }

const bufferSize = 32 << 10

// Get implements httputil.BufferPool.
func (b *buffers) Get() []byte {
	if buffer, ok := b.pool.Get().(*[bufferSize]byte); ok {
		return buffer[:]
	}
	return make([]byte, bufferSize)
}

// Put implements httputil.BufferPool.
func (b *buffers) Put(buffer []byte) { b.pool.Put((*[bufferSize]byte)(buffer)) }
