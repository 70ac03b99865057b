package web

import (
	"bufio"
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/time/rate"

	"github.com/headgate/headgate/pkg/event"
)

// Edge wraps next with what every listener needs: request id and trace context, security
// headers, recovery from panics, the access log and the metrics.
func Edge(next http.Handler, o Options) http.Handler {
	m := newMetrics(o.Metrics)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		origin, err := originOf(r, o.TrustedProxies)
		if err != nil {
			m.unusableHop(r.Context(), o.Log, err)
		}
		info := &requestInfo{route: "unmatched", development: o.Development, unavailable: o.Unavailable, started: time.Now(), upstream: -1, log: o.Log}
		r = r.WithContext(context.WithValue(event.WithOrigin(r.Context(), origin), requestInfoKey{}, info))
		rec := &recorder{ResponseWriter: w}

		h := rec.Header()
		h[requestIDHeader] = []string{origin.RequestID}
		setSecurityHeaders(h)

		m.inFlight.Inc()
		info.onStream = m.inFlight.Dec
		defer func() {
			if info.streaming == 0 {
				m.inFlight.Dec()
			}
		}()
		defer func() { m.record(rec, r, info) }()
		defer recoverPanic(rec, r, o.Log)
		next.ServeHTTP(rec, r)
	})
}

// securityHeaders are the defaults of every response. All responses share the value
// slices, so a handler must replace a header, not append to it.
var securityHeaders = []struct {
	name   string
	values []string
}{
	{"X-Content-Type-Options", []string{"nosniff"}},
	{"Referrer-Policy", []string{"no-referrer"}},
	{"Content-Security-Policy", []string{"default-src 'none'; frame-ancestors 'none'"}},
	{"Cache-Control", []string{"no-store"}},
	{"Cross-Origin-Resource-Policy", []string{"same-origin"}},
}

// SetPageHeaders adds to h what a page needs besides the defaults of every response: its own
// Content-Security-Policy, no connection to the window that opened it, and no access to
// devices or to the person's location.
func SetPageHeaders(h http.Header, policy string) {
	h.Set("Content-Security-Policy", policy)
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Permissions-Policy", "camera=(), geolocation=(), microphone=(), payment=(), usb=()")
}

func setSecurityHeaders(h http.Header) {
	for _, header := range securityHeaders {
		h[header.name] = header.values
	}
}

// recoverPanic responds with 500 if a handler panicked. It passes on http.ErrAbortHandler,
// the standard way to drop a connection.
func recoverPanic(w *recorder, r *http.Request, log *slog.Logger) {
	fault := recover()
	if fault == nil {
		return
	}
	if fault == http.ErrAbortHandler { //nolint:errorlint // The value itself is the signal.
		panic(fault)
	}
	err := fmt.Errorf("panic: %v\n%s", fault, debug.Stack())
	if w.status != 0 {
		log.ErrorContext(r.Context(), "handler panicked after it had responded", "error", err.Error())
		panic(http.ErrAbortHandler)
	}
	Fail(w, r, err)
}

// record counts a request in the metrics and writes its line of access log.
func (m *metrics) record(rec *recorder, r *http.Request, info *requestInfo) {
	if rec.status == 0 {
		rec.status = http.StatusOK
	}
	took := time.Since(info.started)
	counted := took
	if info.streaming > 0 {
		counted = info.streaming
	}
	m.counters(series{methodLabel(r.Method), info.route, rec.status}).observe(counted)
	logRequest(r, rec, info, took)
}

func logRequest(r *http.Request, rec *recorder, info *requestInfo, took time.Duration) {
	level := slog.LevelInfo
	// Services that poll each other would flood the log.
	if strings.HasPrefix(info.route, "/internal/") && rec.status < http.StatusBadRequest {
		level = slog.LevelDebug
	}
	if !info.log.Enabled(r.Context(), level) {
		return
	}
	var buffer [8]slog.Attr
	attrs := append(buffer[:0],
		slog.String("method", methodLabel(r.Method)),
		slog.String("route", info.route),
		slog.Int("status", rec.status),
		slog.Int64("duration_us", took.Microseconds()), // slog formats fractions slowly
		slog.Int64("bytes", rec.bytes),
	)
	if info.upstream >= 0 {
		attrs = append(attrs, slog.Int64("upstream_us", info.upstream.Microseconds()))
	}
	if info.userID != "" {
		attrs = append(attrs, slog.String("user_id", info.userID))
	}
	if info.code != "" {
		attrs = append(attrs, slog.String("code", info.code))
	}
	// LogAttrs would look up the source line, which is always this one.
	line := slog.NewRecord(info.started.Add(took), level, "request", 0)
	line.AddAttrs(attrs...)
	_ = info.log.Handler().Handle(r.Context(), line) // There is no other place to report an error.
}

// methodLabel bounds the values that clients can add to the metrics.
func methodLabel(method string) string {
	switch method {
	case http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete, http.MethodOptions:
		return method
	}
	return "other"
}

type metrics struct {
	requests *prometheus.CounterVec
	duration *prometheus.HistogramVec
	inFlight prometheus.Gauge
	unusable prometheus.Counter
	reported rate.Sometimes // about unusable client addresses

	cache sync.Map // of series to *counters, to avoid a lookup by labels
}

// series identifies counters. There are few, because routes are patterns.
type series struct {
	method string
	route  string
	status int
}

type counters struct {
	requests prometheus.Counter
	duration prometheus.Observer
}

func (c *counters) observe(took time.Duration) {
	c.requests.Inc()
	c.duration.Observe(took.Seconds())
}

func (m *metrics) counters(s series) *counters {
	if cached, ok := m.cache.Load(s); ok {
		return cached.(*counters)
	}
	c := &counters{m.requests.WithLabelValues(s.method, s.route, strconv.Itoa(s.status)), m.duration.WithLabelValues(s.method, s.route)}
	m.cache.Store(s, c)
	return c
}

func newMetrics(reg prometheus.Registerer) *metrics {
	m := &metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "headgate_http_requests_total", Help: "Completed HTTP requests by method, route and status.",
		}, []string{"method", "route", "status"}),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "headgate_http_request_duration_seconds", Help: "Time from the end of the request headers to the end of the response.",
			Buckets: prometheus.ExponentialBuckets(0.0005, 2, 15),
		}, []string{"method", "route"}),
		inFlight: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "headgate_http_requests_in_flight", Help: "HTTP requests in flight.",
		}),
		unusable: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "headgate_http_unusable_client_addresses_total", Help: "Requests from a trusted proxy whose X-Forwarded-For or Forwarded has no valid address; they count as the proxy's own.",
		}),
		reported: rate.Sometimes{Interval: time.Minute},
	}
	reg.MustRegister(m.requests, m.duration, m.inFlight, m.unusable)
	return m
}

// unusableHop counts a request of which the client's address is not known, and logs one a
// minute: all of them share the limits of the proxy's address.
func (m *metrics) unusableHop(ctx context.Context, log *slog.Logger, err error) {
	m.unusable.Inc()
	m.reported.Do(func() {
		log.WarnContext(ctx, "invalid client address from a trusted proxy; using the proxy's own", "error", err.Error())
	})
}

// recorder records status and size of a response.
type recorder struct {
	http.ResponseWriter
	status int
	bytes  int64
}

func (r *recorder) WriteHeader(status int) {
	if status >= 200 && r.status == 0 {
		r.status = status
	}
	r.ResponseWriter.WriteHeader(status)
}

func (r *recorder) Write(b []byte) (int, error) {
	if r.status == 0 {
		r.status = http.StatusOK
	}
	n, err := r.ResponseWriter.Write(b)
	r.bytes += int64(n)
	return n, err
}

// Hijack implements http.Hijacker. The handler then switches protocols.
func (r *recorder) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	c, buffered, err := http.NewResponseController(r.ResponseWriter).Hijack()
	if err == nil {
		r.status = http.StatusSwitchingProtocols
	}
	return c, buffered, err
}

// Unwrap lets http.ResponseController reach the connection.
func (r *recorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }
