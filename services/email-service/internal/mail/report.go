package mail

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// report logs and counts what became of each mail. It notices when the mail server
// defers every mail. It is safe for concurrent use.
type report struct {
	log       *slog.Logger
	now       func() time.Time
	results   *prometheus.CounterVec
	deferring prometheus.Gauge

	mu       sync.Mutex
	mails    map[string]struct{} // deferred since the last one was accepted; at most manyMails
	attempts int                 // deferred since then
	since    time.Time           // of the first of them
	warned   time.Time           // zero while the server is not known to defer every mail
}

const (
	// manyMails is how many different mails the server must have deferred, and accepted
	// none since, so that the recipients are not the reason.
	manyMails = 3
	warnEvery = time.Minute
)

func newReport(log *slog.Logger, metrics prometheus.Registerer, now func() time.Time) *report {
	r := &report{
		log: log, now: now, mails: map[string]struct{}{},
		results: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "headgate_mails_total", Help: "Attempts to send a mail by result: sent, deferred (the mail server answered 4xx) or failed.",
		}, []string{"result"}),
		deferring: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "headgate_mail_server_deferring", Help: "1 while the mail server defers every mail, else 0.",
		}),
	}
	for _, result := range []string{StatusSent, StatusDeferred, StatusFailed} {
		r.results.WithLabelValues(result)
	}
	metrics.MustRegister(r.results, r.deferring)
	return r
}

func (r *report) sent(ctx context.Context, d Delivery) {
	r.results.WithLabelValues(StatusSent).Inc()
	r.log.InfoContext(ctx, "mail sent", attributes(d)...)
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.warned.IsZero() {
		r.log.InfoContext(ctx, "mail server accepts mails again", "attempts", r.attempts, "duration_ms", r.now().Sub(r.since).Milliseconds())
		r.deferring.Set(0)
	}
	clear(r.mails)
	r.attempts, r.warned = 0, time.Time{}
}

func (r *report) deferred(ctx context.Context, d Delivery, next time.Time, reason error) {
	r.results.WithLabelValues(StatusDeferred).Inc()
	r.log.InfoContext(ctx, "mail deferred", append(attributes(d), "next_attempt_at", next, "error", reason.Error())...)
	r.mu.Lock()
	defer r.mu.Unlock()
	now := r.now()
	if r.attempts == 0 {
		r.since = now
	}
	r.attempts++
	if len(r.mails) < manyMails {
		r.mails[d.ID] = struct{}{}
	}
	if len(r.mails) < manyMails || !r.warned.IsZero() && now.Sub(r.warned) < warnEvery {
		return
	}
	r.warned = now
	r.deferring.Set(1)
	r.log.WarnContext(ctx, "mail server defers every mail", "attempts", r.attempts, "since", r.since, "error", reason.Error())
}

func (r *report) failed(ctx context.Context, d Delivery, reason error) {
	r.results.WithLabelValues(StatusFailed).Inc()
	r.log.InfoContext(ctx, "mail failed", append(attributes(d), "error", reason.Error())...)
}

// attributes are those of a log line about a mail. The logger adds the request id.
func attributes(d Delivery) []any {
	return []any{"mail", d.ID, "event_id", d.EventID, "template", d.Template}
}
