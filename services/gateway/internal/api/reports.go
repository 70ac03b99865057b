package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/pkg/web"
	"github.com/headgate/headgate/services/gateway/internal/ratelimit"
	"github.com/headgate/headgate/services/gateway/internal/upstream"
)

// Reports tells auth-service, which writes the audit log, that a rate limit was exceeded.
// A request never waits for it: each key of a policy is reported once per window, and a report
// that does not fit into the queue, because auth-service is unavailable, is counted and
// dropped. Its Run must be running.
type Reports struct {
	auth    *upstream.Service
	log     *slog.Logger
	now     func() time.Time
	queue   chan report
	dropped prometheus.Counter

	mu       sync.Mutex
	reported map[ratelimit.ID]time.Time // until when a key is not reported again
}

type report struct {
	path   string
	header http.Header
	body   any
}

const (
	reportQueue      = 1024
	reportTimeout    = 3 * time.Second
	reportRetryDelay = time.Second
	drainReports     = 2 * time.Second
	maxReported      = 10_000
)

// NewReports returns Reports to auth.
func NewReports(auth *upstream.Service, log *slog.Logger, metrics prometheus.Registerer, now func() time.Time) *Reports {
	r := &Reports{
		auth: auth, log: log, now: now, queue: make(chan report, reportQueue), reported: map[ratelimit.ID]time.Time{},
		dropped: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "headgate_limiter_reports_dropped_total", Help: "Exceeded rate limits missing from the audit log because auth-service was unavailable for too long or rejected the report.",
		}),
	}
	metrics.MustRegister(r.dropped)
	return r
}

// exceeded reports that req exceeded the limit of a key.
func (r *Reports) exceeded(req *http.Request, key ratelimit.Key) {
	rate := key.Policy.Rate
	if !r.firstInWindow(key.ID(), rate.Window) {
		return
	}
	path := event.RateLimitsPath + "/exceeded"
	header := reportHeader(req)
	if web.UserOf(req.Context()) != "" {
		path += "-by-caller"
	} else {
		delete(header, "Authorization")
	}
	rep := report{path: path, header: header, body: event.RateLimitExceeded{
		Policy: key.Policy.Name, Limit: rate.Requests, WindowSeconds: int(rate.Window.Seconds()),
		Method: req.Method, Route: web.RouteOf(req.Context()),
	}}
	select {
	case r.queue <- rep:
	default:
		r.dropped.Inc()
	}
}

// firstInWindow returns true for the first report of a key within a window.
func (r *Reports) firstInWindow(name ratelimit.ID, window time.Duration) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := r.now()
	if until, known := r.reported[name]; known && now.Before(until) {
		return false
	}
	if len(r.reported) >= maxReported {
		for other, until := range r.reported {
			if !now.Before(until) {
				delete(r.reported, other)
			}
		}
		if len(r.reported) >= maxReported {
			clear(r.reported) // Some are reported twice; none is left out.
		}
	}
	r.reported[name] = now.Add(window)
	return true
}

// reportHeader returns the header of a report on behalf of req's client. The user agent is as
// short as auth-service stores it, because reports wait in memory.
func reportHeader(req *http.Request) http.Header {
	h := http.Header{"Content-Type": {"application/json"}}
	for name, values := range requestEdit(req).Apply(req.Header) {
		switch name {
		case "User-Agent":
			h[name] = []string{event.OriginFrom(req.Context()).UserAgent}
		case "X-Forwarded-For", "X-Request-Id", "Traceparent", "Authorization":
			h[name] = values
		}
	}
	return h
}

// Run implements service.Runner: it sends reports until ctx ends, and then those in the
// queue, for up to drainReports.
func (r *Reports) Run(ctx context.Context) error {
	for {
		select {
		case rep := <-r.queue:
			r.deliver(ctx, rep)
		case <-ctx.Done():
			ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), drainReports)
			defer cancel()
			for len(r.queue) > 0 && ctx.Err() == nil {
				r.deliver(ctx, <-r.queue)
			}
			return nil
		}
	}
}

// deliver retries until auth-service has accepted or rejected the report, or ctx ends.
func (r *Reports) deliver(ctx context.Context, rep report) {
	for {
		err := r.send(ctx, rep)
		if err == nil {
			return
		}
		r.log.DebugContext(ctx, "report delivery failed; retrying", "next_in", reportRetryDelay, "error", err.Error())
		select {
		case <-ctx.Done():
			r.dropped.Inc()
			return
		case <-time.After(reportRetryDelay):
		}
	}
}

func (r *Reports) send(ctx context.Context, rep report) error {
	ctx, cancel := context.WithTimeout(ctx, reportTimeout)
	defer cancel()
	res, err := postReport(ctx, r.auth, rep)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if _, err := io.Copy(io.Discard, io.LimitReader(res.Body, bufferSize)); err != nil {
		return fmt.Errorf("report: %w", err)
	}
	switch {
	case res.StatusCode >= http.StatusInternalServerError:
		return errors.New("report: " + res.Status)
	case res.StatusCode >= http.StatusBadRequest:
		// For example 401 because the session has ended: a retry would fail again.
		r.log.InfoContext(ctx, "report rejected", "path", rep.path, "status", res.StatusCode)
		r.dropped.Inc()
	}
	return nil
}

// postReport sends a report and returns the response.
func postReport(ctx context.Context, auth *upstream.Service, rep report) (*http.Response, error) {
	body, err := json.Marshal(rep.body)
	if err != nil {
		return nil, fmt.Errorf("encode report: %w", err)
	}
	req := (&http.Request{
		Method: http.MethodPost, URL: &url.URL{Path: rep.path}, Header: rep.header, ContentLength: int64(len(body)),
		GetBody: func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(body)), nil },
	}).WithContext(ctx)
	req.Body, _ = req.GetBody()
	return auth.RoundTrip(req)
}
