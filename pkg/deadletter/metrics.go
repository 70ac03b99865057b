package deadletter

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/pkg/postgres"
)

// Gauge returns the metric of the open dead letters. Types that this release does not know
// share one label, so that nobody can create time series by publishing events.
func (s *Store) Gauge() prometheus.Collector {
	const query = `
		SELECT CASE WHEN type IS NULL THEN 'none' WHEN type = ANY($1) THEN type ELSE 'other' END,
			CASE WHEN class IN ('permanent', 'message') THEN class ELSE 'other' END, count(*)::float8
		FROM dead_letters
		WHERE status = 'open'
		GROUP BY 1, 2`
	contracts := event.Contracts()
	names := make([]string, len(contracts))
	for i, p := range contracts {
		names[i] = p.EventName()
	}
	return postgres.NewQueryGauge(s.db, prometheus.GaugeOpts{
		Name: "headgate_dead_letters_open", Help: "Open dead letters by event type (none: could not be decoded) and class.",
	}, []string{"type", "class"}, query, names)
}
