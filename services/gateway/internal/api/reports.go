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

// Reports tell auth-service, which writes it down, that a limit was exceeded. They
// never keep a request waiting: each party is told of once for a while, and what does
// not fit into the queue while auth-service is away is counted and dropped. Run must
// run.
type Reports struct {
	auth    *upstream.Service
	log     *slog.Logger
	now     func() time.Time
	queue   chan report
	dropped prometheus.Counter

	mu   sync.Mutex
	told map[string]time.Time // until when a party is not told of again
}

type report struct {
	path   string
	header http.Header
	body   any
}

const (
	reportQueue   = 1024
	reportTimeout = 3 * time.Second
	reportPause   = time.Second
	drainReports  = 2 * time.Second
	maxTold       = 10_000
)

// NewReports returns reports that go to auth.
func NewReports(auth *upstream.Service, log *slog.Logger, metrics prometheus.Registerer, now func() time.Time) *Reports {
	r := &Reports{
		auth: auth, log: log, now: now, queue: make(chan report, reportQueue), told: map[string]time.Time{},
		dropped: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "headgate_limiter_reports_dropped_total", Help: "Exceeded limits that the audit log does not know of, because auth-service was away for too long.",
		}),
	}
	metrics.MustRegister(r.dropped)
	return r
}

// exceeded reports that who had no room.
func (r *Reports) exceeded(req *http.Request, d ratelimit.Decision, who string) {
	if !r.first(d.Policy.Name+" "+who, d.Policy.Rate.Window) {
		return
	}
	path := event.RateLimitsPath + "/exceeded"
	if web.UserOf(req.Context()) != "" {
		path += "-by-caller"
	}
	told := report{path: path, header: reportHeader(req), body: event.RateLimitExceeded{
		Policy: d.Policy.Name, Limit: d.Policy.Rate.Requests, WindowSeconds: int(d.Policy.Rate.Window.Seconds()),
		Method: req.Method, Route: web.RouteOf(req.Context()),
	}}
	select {
	case r.queue <- told:
	default:
		r.dropped.Inc()
	}
}

// first reports whether a party was not told of within the last window.
func (r *Reports) first(name string, window time.Duration) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := r.now()
	if until, known := r.told[name]; known && now.Before(until) {
		return false
	}
	if len(r.told) >= maxTold {
		for other, until := range r.told {
			if !now.Before(until) {
				delete(r.told, other)
			}
		}
		if len(r.told) >= maxTold {
			clear(r.told) // Some are told of again; none is left out.
		}
	}
	r.told[name] = now.Add(window)
	return true
}

// reportHeader says on whose behalf a report is made, as a request of theirs would.
func reportHeader(req *http.Request) http.Header {
	h := http.Header{"Content-Type": {"application/json"}}
	for name, values := range onward(req).Apply(req.Header) {
		switch name {
		case "User-Agent", "X-Forwarded-For", "X-Request-Id", "Traceparent", "Authorization":
			h[name] = values
		}
	}
	return h
}

// Run implements service.Runner: it sends reports until ctx ends, and for a moment
// longer those that wait.
func (r *Reports) Run(ctx context.Context) error {
	for {
		select {
		case told := <-r.queue:
			r.deliver(ctx, told)
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

// deliver tries until auth-service has taken the report, or refused it.
func (r *Reports) deliver(ctx context.Context, told report) {
	for {
		err := r.send(ctx, told)
		if err == nil {
			return
		}
		r.log.DebugContext(ctx, "report not delivered", "error", err.Error())
		select {
		case <-ctx.Done():
			r.dropped.Inc()
			return
		case <-time.After(reportPause):
		}
	}
}

func (r *Reports) send(ctx context.Context, told report) error {
	ctx, cancel := context.WithTimeout(ctx, reportTimeout)
	defer cancel()
	res, err := ask(ctx, r.auth, told)
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
		// Such as 401 for a session that has ended: the same report would fail again.
		r.log.InfoContext(ctx, "report refused", "path", told.path, "status", res.StatusCode)
		r.dropped.Inc()
	}
	return nil
}

// ask sends a report and returns the answer.
func ask(ctx context.Context, auth *upstream.Service, told report) (*http.Response, error) {
	body, err := json.Marshal(told.body)
	if err != nil {
		return nil, fmt.Errorf("encode report: %w", err)
	}
	req := (&http.Request{
		Method: http.MethodPost, URL: &url.URL{Path: told.path}, Header: told.header, ContentLength: int64(len(body)),
		GetBody: func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(body)), nil },
	}).WithContext(ctx)
	req.Body, _ = req.GetBody()
	return auth.RoundTrip(req)
}
