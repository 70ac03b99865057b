package reconcile

import "github.com/prometheus/client_golang/prometheus"

type consumerMetrics struct {
	missing, unavailable, surplus *prometheus.GaugeVec
	restored                      *prometheus.CounterVec
}

func newConsumerMetrics(reg prometheus.Registerer) consumerMetrics {
	gauge := func(name, help string) *prometheus.GaugeVec {
		return prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: name, Help: help}, []string{"topic", "producer"})
	}
	m := consumerMetrics{
		missing:     gauge("headgate_events_missing", "Published events without a consumed-event record although the consumer group has caught up."),
		unavailable: gauge("headgate_events_unavailable", "Missing events that the producer's outbox does not have any more. An operator has to accept them."),
		surplus:     gauge("headgate_events_surplus", "Recorded events that the producer's outbox does not know."),
		restored: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "headgate_consumer_restored_total", Help: "How often the consumer's database was found to be an older copy of itself.",
		}, []string{"topic"}),
	}
	reg.MustRegister(m.missing, m.unavailable, m.surplus, m.restored)
	return m
}

func (m consumerMetrics) set(w Watermark, found findings) {
	labels := prometheus.Labels{"topic": string(w.Topic), "producer": w.Producer}
	m.missing.With(labels).Set(float64(found.missing))
	m.unavailable.With(labels).Set(float64(found.unavailable))
	m.surplus.With(labels).Set(float64(found.surplus))
}
