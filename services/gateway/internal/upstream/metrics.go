package upstream

import "github.com/prometheus/client_golang/prometheus"

// Metrics are what operators see of all services.
type Metrics struct {
	breaker *prometheus.GaugeVec
	wait    *prometheus.HistogramVec
}

// NewMetrics returns metrics that are registered with reg.
func NewMetrics(reg prometheus.Registerer) *Metrics {
	m := &Metrics{
		breaker: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "headgate_upstream_breaker_state", Help: "Whether a service's address is left alone because it failed: 0 no, 1 one request tries it, 2 yes.",
		}, []string{"service", "address"}),
		wait: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "headgate_upstream_duration_seconds", Help: "Time until a service's answer began, or failed to.",
			Buckets: prometheus.ExponentialBuckets(0.0005, 2, 15),
		}, []string{"service"}),
	}
	reg.MustRegister(m.breaker, m.wait)
	return m
}
