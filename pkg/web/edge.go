package web

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/headgate/headgate/pkg/event"
)

// Edge wraps next with what every listener has: request id and trace, security
// headers, recovery from panics, one line of access log and the metrics.
func Edge(next http.Handler, o Options) http.Handler {
	m := newMetrics(o.Metrics)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r = withOrigin(r, o.TrustedProxies)
		about := &info{route: "unmatched", development: o.Development, unavailable: o.Unavailable, started: time.Now(), log: o.Log}
		r = r.WithContext(context.WithValue(r.Context(), infoKey{}, about))
		rec := &recorder{ResponseWriter: w}

		h := rec.Header()
		h.Set(requestIDHeader, event.OriginFrom(r.Context()).RequestID)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")

		m.inFlight.Inc()
		defer m.inFlight.Dec()
		defer func() { account(r, rec, about, m, o.Log) }()
		defer recoverPanic(rec, r, o.Log)
		next.ServeHTTP(rec, r)
	})
}

// recoverPanic answers 500 for a handler that panicked. http.ErrAbortHandler
// is the standard way to drop a connection and goes on.
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
		log.ErrorContext(r.Context(), "handler panicked after it had answered", "error", err.Error())
		panic(http.ErrAbortHandler)
	}
	Fail(w, r, err)
}

func account(r *http.Request, rec *recorder, about *info, m *metrics, log *slog.Logger) {
	if rec.status == 0 {
		rec.status = http.StatusOK
	}
	took := time.Since(about.started)
	method := r.Method
	if !knownMethod(method) {
		method = "other"
	}
	m.requests.WithLabelValues(method, about.route, strconv.Itoa(rec.status)).Inc()
	m.duration.WithLabelValues(method, about.route).Observe(took.Seconds())

	attrs := []slog.Attr{
		slog.String("method", method),
		slog.String("route", about.route),
		slog.Int("status", rec.status),
		slog.Float64("duration_ms", float64(took.Microseconds())/1000),
		slog.Int64("bytes", rec.bytes),
	}
	if about.userID != "" {
		attrs = append(attrs, slog.String("user_id", about.userID))
	}
	if about.code != "" {
		attrs = append(attrs, slog.String("code", about.code))
	}
	level := slog.LevelInfo
	// Services that poll each other would drown what people do.
	if strings.HasPrefix(about.route, "/internal/") && rec.status < http.StatusBadRequest {
		level = slog.LevelDebug
	}
	log.LogAttrs(r.Context(), level, "request", attrs...)
}

func knownMethod(method string) bool {
	switch method {
	case http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete, http.MethodOptions:
		return true
	}
	return false
}

type metrics struct {
	requests *prometheus.CounterVec
	duration *prometheus.HistogramVec
	inFlight prometheus.Gauge
}

func newMetrics(reg prometheus.Registerer) *metrics {
	m := &metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "headgate_http_requests_total", Help: "Requests answered, by route and status.",
		}, []string{"method", "route", "status"}),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "headgate_http_request_duration_seconds", Help: "Time from the request's headers to the end of the answer.",
			Buckets: prometheus.ExponentialBuckets(0.0005, 2, 15),
		}, []string{"method", "route"}),
		inFlight: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "headgate_http_requests_in_flight", Help: "Requests being answered.",
		}),
	}
	reg.MustRegister(m.requests, m.duration, m.inFlight)
	return m
}

// recorder remembers status and size of an answer.
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

// Unwrap lets http.ResponseController reach the connection.
func (r *recorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }
