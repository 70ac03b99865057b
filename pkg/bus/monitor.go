package bus

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"

	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/pkg/service"
)

// Monitor exports how large streams are and how far their consumer groups are behind.
// It runs in every service behind the gateway, so that the lag of a consumer is visible
// while the consumer is dead or scaled to zero. All instances export the same values,
// so an alert takes their maximum.
//
// It reads ids of entries and never their content.
//
// Each stream is observed by itself: one whose server does not answer delays no other.
type Monitor struct {
	cfg     MonitorConfig
	metrics *monitorMetrics
	outage  *service.Outage // by topic
}

// MonitorConfig says which streams a monitor observes.
type MonitorConfig struct {
	Client   redis.UniversalClient
	Topics   []event.Topic
	MaxBytes int64         // of one stream, above which it is over its limit
	Interval time.Duration // 5 s if zero

	Log     *slog.Logger
	Metrics prometheus.Registerer
}

// streamMonitor observes one stream.
type streamMonitor struct {
	*Monitor
	topic event.Topic
	seen  map[string]groupProgress // by group
}

// groupProgress is what the monitor remembers of a consumer group.
type groupProgress struct {
	first    time.Time // seen first, by the clock of Redis as the other
	caughtUp time.Time // seen without unread entries last
}

type monitorMetrics struct {
	lag, pending, oldestUnread, oldestPending *prometheus.GaugeVec // by topic and group
	length, bytes, overLimit, foreign         *prometheus.GaugeVec // by topic
}

// NewMonitor returns a monitor.
func NewMonitor(cfg MonitorConfig) *Monitor {
	if cfg.Interval == 0 {
		cfg.Interval = 5 * time.Second
	}
	gauge := func(name, help string, labels ...string) *prometheus.GaugeVec {
		g := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: name, Help: help + " All instances export the same value."}, append([]string{"topic"}, labels...))
		cfg.Metrics.MustRegister(g)
		return g
	}
	outage := service.NewOutage(service.OutageConfig{
		Log: cfg.Log, Failing: "streams could not be inspected; retrying", Over: "streams can be inspected again",
		Parts: "topics", Reported: redisUnavailable,
	})
	return &Monitor{cfg: cfg, outage: outage, metrics: &monitorMetrics{
		lag:           gauge("headgate_stream_lag", "Entries that the consumer group has not read yet; -1 if Redis does not know.", "group"),
		pending:       gauge("headgate_stream_pending", "Entries that the consumer group has read and not acknowledged yet.", "group"),
		oldestUnread:  gauge("headgate_stream_oldest_unread_seconds", "For how long the consumer group has had unread entries, at most; 0 without any.", "group"),
		oldestPending: gauge("headgate_stream_oldest_pending_seconds", "Age of the oldest entry that the consumer group has read and not acknowledged; 0 without any.", "group"),
		length:        gauge("headgate_stream_length", "Entries in the stream."),
		bytes:         gauge("headgate_stream_bytes", "Memory that the stream takes in Redis."),
		overLimit:     gauge("headgate_stream_over_limit", "1 while the stream takes more memory than STREAM_MAX_BYTES, else 0."),
		foreign:       gauge("headgate_stream_foreign_groups", "Consumer groups of the stream that belong to no service. They do not keep entries from being trimmed."),
	}}
}

// Run implements service.Runner.
func (m *Monitor) Run(ctx context.Context) error {
	var running sync.WaitGroup
	defer running.Wait()
	for _, topic := range m.cfg.Topics {
		s := &streamMonitor{Monitor: m, topic: topic, seen: map[string]groupProgress{}}
		running.Go(func() {
			s.observe(ctx)
			every(ctx, m.cfg.Interval, func() { s.observe(ctx) })
		})
	}
	return nil
}

func (m *streamMonitor) observe(ctx context.Context) {
	limited, cancel := context.WithTimeout(ctx, EventTimeout)
	defer cancel()
	err := m.observeStream(limited)
	if ctx.Err() != nil {
		return
	}
	if err != nil {
		m.forget()
	}
	m.outage.Record(ctx, string(m.topic), err)
}

// forget removes the values of the stream: outdated ones would hide a problem.
func (m *streamMonitor) forget() {
	for _, g := range []*prometheus.GaugeVec{
		m.metrics.lag, m.metrics.pending, m.metrics.oldestUnread, m.metrics.oldestPending,
		m.metrics.length, m.metrics.bytes, m.metrics.overLimit, m.metrics.foreign,
	} {
		g.DeletePartialMatch(prometheus.Labels{"topic": string(m.topic)})
	}
}

func (m *streamMonitor) observeStream(ctx context.Context) error {
	topic, name := m.topic, string(m.topic)
	now, err := timeAt(ctx, m.cfg.Client, name)
	if err != nil {
		return err
	}
	pipe := m.cfg.Client.Pipeline()
	length, bytes, infos := pipe.XLen(ctx, name), pipe.MemoryUsage(ctx, name), pipe.XInfoGroups(ctx, name)
	_, _ = pipe.Exec(ctx) // Each command has its own error.
	for _, err := range []error{length.Err(), bytes.Err(), infos.Err()} {
		if err != nil && !errors.Is(err, redis.Nil) && !noStream(err) {
			return fmt.Errorf("inspect %s: %w", topic, err)
		}
	}
	m.metrics.length.WithLabelValues(name).Set(float64(length.Val()))
	m.metrics.bytes.WithLabelValues(name).Set(float64(bytes.Val()))
	over := 0.0
	if m.cfg.MaxBytes > 0 && bytes.Val() > m.cfg.MaxBytes {
		over = 1
	}
	m.metrics.overLimit.WithLabelValues(name).Set(over)

	groups := infos.Val()
	foreign := 0
	for _, g := range groups {
		if !slices.Contains(topic.Groups(), g.Name) {
			foreign++
			m.logForeign(ctx, g.Name)
		}
	}
	m.metrics.foreign.WithLabelValues(name).Set(float64(foreign))
	for _, group := range topic.Groups() {
		if !slices.ContainsFunc(groups, func(g redis.XInfoGroup) bool { return g.Name == group }) {
			// The group has never read, so it lacks every entry.
			groups = append(groups, redis.XInfoGroup{Name: group, Lag: length.Val()})
		}
	}
	m.removeOthers(groups)
	return m.observeGroups(ctx, groups, now)
}

func (m *streamMonitor) observeGroups(ctx context.Context, groups []redis.XInfoGroup, now time.Time) error {
	topic := m.topic
	pipe := m.cfg.Client.Pipeline()
	oldest := map[string]*redis.XPendingCmd{}
	for _, g := range groups {
		if g.Pending > 0 {
			oldest[g.Name] = pipe.XPending(ctx, string(topic), g.Name)
		}
	}
	if _, err := pipe.Exec(ctx); err != nil {
		return fmt.Errorf("inspect %s: %w", topic, err)
	}
	for _, g := range groups {
		labels := []string{string(topic), g.Name}
		m.metrics.lag.WithLabelValues(labels...).Set(float64(g.Lag))
		m.metrics.pending.WithLabelValues(labels...).Set(float64(g.Pending))
		pendingAge := 0.0
		if p := oldest[g.Name]; p != nil && p.Val().Count > 0 {
			pendingAge = age(now, time.UnixMilli(parseEntryID(p.Val().Lower).ms))
		}
		m.metrics.oldestPending.WithLabelValues(labels...).Set(pendingAge)
		if unread, ok := m.unreadSince(g, now); ok {
			m.metrics.oldestUnread.WithLabelValues(labels...).Set(age(now, unread))
		} else {
			m.metrics.oldestUnread.DeleteLabelValues(labels...)
		}
	}
	return nil
}

// unreadSince returns since when a group has had unread entries, or a time before that.
// ok is false if Redis does not know whether the group has any.
//
// The id of the oldest unread entry would be exact, but Redis returns it with the
// entry's content. The unread entries came after the last one that the group read, and
// after the group was seen without unread entries.
func (m *streamMonitor) unreadSince(g redis.XInfoGroup, now time.Time) (since time.Time, ok bool) {
	known, found := m.seen[g.Name]
	if !found {
		known = groupProgress{first: now}
	}
	if g.Lag == 0 {
		known.caughtUp = now
	}
	m.seen[g.Name] = known
	read := time.UnixMilli(parseEntryID(g.LastDeliveredID).ms)
	switch {
	case g.Lag < 0:
		return time.Time{}, false
	case known.caughtUp.After(read):
		return known.caughtUp, true
	case read.UnixMilli() == 0:
		return known.first, true // The group has read nothing yet.
	}
	return read, true
}

func age(now, then time.Time) float64 { return max(0, now.Sub(then).Seconds()) }

// logForeign logs a foreign group when it is seen first.
func (m *streamMonitor) logForeign(ctx context.Context, group string) {
	if _, found := m.seen[group]; !found {
		m.cfg.Log.WarnContext(ctx, "consumer group belongs to no service", "topic", m.topic, "group", group)
	}
}

// removeOthers removes the values of groups that exist no more.
func (m *streamMonitor) removeOthers(groups []redis.XInfoGroup) {
	for group := range m.seen {
		if slices.ContainsFunc(groups, func(g redis.XInfoGroup) bool { return g.Name == group }) {
			continue
		}
		delete(m.seen, group)
		for _, g := range []*prometheus.GaugeVec{m.metrics.lag, m.metrics.pending, m.metrics.oldestUnread, m.metrics.oldestPending} {
			g.DeleteLabelValues(string(m.topic), group)
		}
	}
}
