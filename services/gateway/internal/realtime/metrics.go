package realtime

import (
	"strconv"

	"github.com/prometheus/client_golang/prometheus"
)

type metrics struct {
	connections *prometheus.GaugeVec
	refused     *prometheus.CounterVec
	ended       *prometheus.CounterVec
	resumes     *prometheus.CounterVec
	delivered   prometheus.Counter
}

func newMetrics(reg prometheus.Registerer, h *Hub) *metrics {
	m := &metrics{
		connections: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "headgate_realtime_connections", Help: "Open real-time connections, by transport: websocket or sse.",
		}, []string{"transport"}),
		refused: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "headgate_realtime_refused_total", Help: "Real-time connections refused, by reason: a limit (total, network, user), draining, or unavailable while the streams cannot be read.",
		}, []string{"reason"}),
		ended: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "headgate_realtime_closed_total", Help: "Real-time connections closed, by close code; 1000 if the client has gone.",
		}, []string{"code"}),
		resumes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "headgate_realtime_resumes_total", Help: "Clients that continued after a message, by result: resumed, or failed if messages may be missing.",
		}, []string{"result"}),
		delivered: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "headgate_realtime_messages_total", Help: "Messages queued for real-time connections.",
		}),
	}
	reg.MustRegister(m.connections, m.refused, m.ended, m.resumes, m.delivered, prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "headgate_realtime_kept_messages", Help: "Messages kept for clients that connect again.",
	}, func() float64 {
		h.mu.Lock()
		defer h.mu.Unlock()
		return float64(len(h.ring.all))
	}))
	return m
}

// closed counts the end of a connection.
func (m *metrics) closed(c *Conn) {
	code := 1000
	if why := c.Why(); why != nil {
		code = why.Code
	}
	m.ended.WithLabelValues(strconv.Itoa(code)).Inc()
	m.connections.WithLabelValues(c.client.Transport).Dec()
}
