package postgres

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/prometheus/client_golang/prometheus"
)

// QueryGauge is a metric whose values are the rows of a query at the time of the scrape.
// It has no values while the database does not answer. It is a prometheus.Collector.
type QueryGauge struct {
	db    Querier
	desc  *prometheus.Desc
	query string
	args  []any
}

// gaugeTimeout keeps a database that hangs from delaying the other metrics.
const gaugeTimeout = 2 * time.Second

// NewQueryGauge returns a metric with the labels. Each row of the query is the values of
// the labels, as texts, and the value, as a double precision.
func NewQueryGauge(db Querier, opts prometheus.GaugeOpts, labels []string, query string, args ...any) *QueryGauge {
	return &QueryGauge{db: db, desc: prometheus.NewDesc(opts.Name, opts.Help, labels, opts.ConstLabels), query: query, args: args}
}

// Describe implements prometheus.Collector.
func (g *QueryGauge) Describe(descs chan<- *prometheus.Desc) { descs <- g.desc }

// Collect implements prometheus.Collector.
func (g *QueryGauge) Collect(metrics chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), gaugeTimeout)
	defer cancel()
	rows, err := g.db.Query(ctx, g.query, g.args...)
	if err != nil {
		return
	}
	values, err := pgx.CollectRows(rows, g.scan)
	if err != nil {
		return
	}
	for _, metric := range values {
		metrics <- metric
	}
}

func (g *QueryGauge) scan(row pgx.CollectableRow) (prometheus.Metric, error) {
	labels := make([]string, len(row.FieldDescriptions())-1)
	targets := make([]any, 0, len(labels)+1)
	for i := range labels {
		targets = append(targets, &labels[i])
	}
	var value float64
	if err := row.Scan(append(targets, &value)...); err != nil {
		return nil, fmt.Errorf("scan metric: %w", err)
	}
	return prometheus.NewConstMetric(g.desc, prometheus.GaugeValue, value, labels...)
}
