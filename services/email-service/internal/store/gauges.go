package store

import (
	"context"
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/headgate/headgate/pkg/postgres"
)

// Gauges returns the metrics of the deliveries that are not finished.
func (s *Store) Gauges() []prometheus.Collector {
	const byStatus = `
		SELECT status, (SELECT count(*) FROM messages m WHERE m.status = s.status)::float8
		FROM unnest(ARRAY['queued', 'sending', 'deferred', 'withheld']) AS s (status)`
	const undecided = `SELECT count(*)::float8 FROM restores WHERE resumed_at IS NULL`
	return []prometheus.Collector{
		postgres.NewQueryGauge(s.db, prometheus.GaugeOpts{
			Name: "headgate_mails", Help: "Mails that are not finished by status: queued, sending, deferred or withheld.",
		}, []string{"status"}, byStatus),
		postgres.NewQueryGauge(s.db, prometheus.GaugeOpts{
			Name: "headgate_mail_decision_pending", Help: "1 while mails are withheld because the database was restored, until email-service resume is called; else 0.",
		}, nil, undecided),
	}
}

// WithheldNotice returns what an operator has to decide, or nothing. It is a notice of
// /readyz.
func (s *Store) WithheldNotice(ctx context.Context) string {
	withheld, err := s.Withheld(ctx)
	if err != nil || withheld.Since.IsZero() {
		return ""
	}
	return fmt.Sprintf("the database was restored: mails of events until %s are withheld, %d so far; decide with email-service resume",
		withheld.HandledUntil.UTC().Format(time.RFC3339), withheld.Mails)
}
