package bus

import "github.com/prometheus/client_golang/prometheus"

// streamMetrics are the metrics of the streams that a subscriber reads.
type streamMetrics struct {
	waiting       *prometheus.GaugeVec
	claimed, lost *prometheus.CounterVec
	trimmed       *prometheus.CounterVec

	trimmedByOthers *prometheus.CounterVec
}

func newStreamMetrics(reg prometheus.Registerer) *streamMetrics {
	labels := []string{"topic", "group"}
	gauge := func(name, help string) *prometheus.GaugeVec {
		return prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: name, Help: help}, labels)
	}
	counter := func(name, help string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
	}
	m := &streamMetrics{
		waiting: gauge("headgate_consumer_wait_list", "Events in flight that wait for their next attempt without a slot in the window."),
		claimed: counter("headgate_stream_claimed_total", "Entries claimed from consumers that died."),
		lost:    counter("headgate_stream_entries_lost_total", "Entries deleted from the stream before they were handled."),
		trimmed: counter("headgate_stream_trimmed_total", "Entries trimmed after every configured consumer group had acknowledged them."),
	}
	m.trimmedByOthers = counter("headgate_stream_trimmed_by_others_total", "How often entries were missing that only somebody else can have removed.")
	if reg != nil {
		reg.MustRegister(m.waiting, m.claimed, m.lost, m.trimmed, m.trimmedByOthers)
	}
	return m
}
