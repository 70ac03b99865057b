package upstream

import "github.com/prometheus/client_golang/prometheus"

// Metrics are the metrics of all upstream services.
type Metrics struct {
	breaker     *prometheus.GaugeVec
	inFlight    *prometheus.GaugeVec
	connections *prometheus.GaugeVec
	duration    *prometheus.HistogramVec
	reachable   *prometheus.GaugeVec
	waiting     *prometheus.GaugeVec
}

// NewMetrics returns metrics registered with reg.
func NewMetrics(reg prometheus.Registerer) *Metrics {
	m := &Metrics{
		breaker: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "headgate_upstream_breaker_state", Help: "State of the circuit breaker of a service's address: 0 closed, 1 half-open, 2 open.",
		}, []string{"service", "address"}),
		inFlight: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "headgate_upstream_requests_in_flight", Help: "Requests in flight to a service's address.",
		}, []string{"service", "address"}),
		connections: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "headgate_upstream_connections_open", Help: "Open connections to a service's address, in use or idle.",
		}, []string{"service", "address"}),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "headgate_upstream_duration_seconds", Help: "Time until a service's response began or the request failed.",
			Buckets: prometheus.ExponentialBuckets(0.0005, 2, 15),
		}, []string{"service"}),
		reachable: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "headgate_upstream_reachable", Help: "Whether a service's address accepts connections (1) or not (0).",
		}, []string{"service", "address"}),
		waiting: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "headgate_upstream_requests_waiting", Help: "Requests that wait for a service that accepts no connections.",
		}, []string{"service"}),
	}
	reg.MustRegister(m.breaker, m.inFlight, m.connections, m.duration, m.reachable, m.waiting)
	return m
}
