package bus

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"
)

// streamMetrics are what an operator must know of a stream.
type streamMetrics struct {
	lag, pending  *prometheus.GaugeVec
	claimed, lost *prometheus.CounterVec
	trimmed       *prometheus.CounterVec
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
		lag:     gauge("headgate_stream_lag", "Entries that no consumer of the group has read yet; -1 if Redis cannot tell."),
		pending: gauge("headgate_stream_pending", "Entries that were read and not acknowledged yet."),
		claimed: counter("headgate_stream_claimed_total", "Entries taken over from consumers that died."),
		lost:    counter("headgate_stream_entries_lost_total", "Entries deleted from the stream before they were handled."),
		trimmed: counter("headgate_stream_trimmed_total", "Entries trimmed after every group had settled them."),
	}
	if reg != nil {
		reg.MustRegister(m.lag, m.pending, m.claimed, m.lost, m.trimmed)
	}
	return m
}

// tidy surveys the stream, trims what every group has settled, and removes the
// consumers that are gone.
func (s *subscription) tidy(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, EventPatience)
	defer cancel()
	err := errors.Join(s.survey(ctx), s.bury(ctx))
	if err != nil && !lostGroup(err) && ctx.Err() == nil {
		s.cfg.Log.WarnContext(ctx, "stream not tidied", "topic", s.topic, "error", err.Error())
	}
}

func (s *subscription) survey(ctx context.Context) error {
	groups, err := groupsOf(ctx, s.cfg.Client, s.topic)
	if err != nil {
		return err
	}
	if own, ok := groups[s.cfg.Group]; ok {
		s.metrics.lag.With(s.lookup).Set(float64(own.lag))
		s.metrics.pending.With(s.lookup).Set(float64(own.pending))
	}
	for _, name := range append(s.cfg.Groups, s.cfg.Group) {
		if _, ok := groups[name]; !ok {
			return nil // It has not begun to read: everything is still to come for it.
		}
	}
	settled := entryAt(time.Now().Add(-s.cfg.Retain))
	for _, g := range groups {
		settled = slices.MinFunc([]entryID{settled, g.settled}, entryID.compare)
	}
	n, err := s.cfg.Client.XTrimMinIDApprox(ctx, s.topic, settled.String(), 0).Result()
	if err != nil {
		return fmt.Errorf("trim %s: %w", s.topic, err)
	}
	s.metrics.trimmed.With(s.lookup).Add(float64(n))
	return nil
}

// CaughtUp returns the time up to which the group has settled whatever was added
// to the stream: an event that was added before and has left no trace is lost.
// It returns the zero time while the group or the stream does not exist.
func CaughtUp(ctx context.Context, client redis.UniversalClient, topic, group string) (time.Time, error) {
	now, err := client.Time(ctx).Result()
	if err != nil {
		return time.Time{}, fmt.Errorf("ask Redis for the time: %w", err)
	}
	groups, err := groupsOf(ctx, client, topic)
	if err != nil {
		return time.Time{}, err
	}
	g, ok := groups[group]
	if !ok {
		return time.Time{}, nil
	}
	if g.pending == 0 {
		// Redis cannot tell the lag once entries were deleted, so look at the last.
		info, err := client.XInfoStream(ctx, topic).Result()
		if err != nil {
			return time.Time{}, fmt.Errorf("survey %s: %w", topic, err)
		}
		if info.Length == 0 || parseEntryID(info.LastEntry.ID).compare(g.settled) <= 0 {
			return now, nil
		}
	}
	return time.UnixMilli(g.settled.ms), nil
}

// group is how far a group of consumers has come.
type group struct {
	pending, lag int64
	settled      entryID // every entry before it was acknowledged
}

func groupsOf(ctx context.Context, client redis.UniversalClient, topic string) (map[string]group, error) {
	infos, err := client.XInfoGroups(ctx, topic).Result()
	if err != nil && strings.Contains(err.Error(), "no such key") {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("survey %s: %w", topic, err)
	}
	groups := make(map[string]group, len(infos))
	for _, info := range infos {
		g := group{pending: info.Pending, lag: info.Lag, settled: parseEntryID(info.LastDeliveredID)}
		if info.Pending > 0 {
			oldest, err := client.XPending(ctx, topic, info.Name).Result()
			if err != nil {
				return nil, fmt.Errorf("survey %s: %w", topic, err)
			}
			if oldest.Count > 0 {
				g.settled = slices.MinFunc([]entryID{g.settled, parseEntryID(oldest.Lower)}, entryID.compare)
			}
		}
		groups[info.Name] = g
	}
	return groups, nil
}

// bury removes consumers that have not been heard of for long and hold nothing,
// in one script: a consumer that came back between a look and the removal would
// lose what it has just read.
var bury = redis.NewScript(`
	local gone = 0
	for _, info in ipairs(redis.call('XINFO', 'CONSUMERS', KEYS[1], ARGV[1])) do
		local c = {}
		for i = 1, #info, 2 do c[info[i]] = info[i + 1] end
		if c.name ~= ARGV[2] and c.pending == 0 and c.idle > tonumber(ARGV[3]) then
			redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], c.name)
			gone = gone + 1
		end
	end
	return gone`)

func (s *subscription) bury(ctx context.Context) error {
	n, err := bury.Run(ctx, s.cfg.Client, []string{s.topic}, s.cfg.Group, s.cfg.Consumer, s.cfg.ConsumerTTL.Milliseconds()).Int()
	if err != nil {
		return fmt.Errorf("remove consumers of %s: %w", s.topic, err)
	}
	if n > 0 {
		s.cfg.Log.InfoContext(ctx, "consumers removed that were long gone", "topic", s.topic, "count", n)
	}
	return nil
}

// entryID is the id of a stream entry: a time of Redis in milliseconds and a
// number within it.
type entryID struct{ ms, n int64 }

func entryAt(t time.Time) entryID { return entryID{ms: t.UnixMilli()} }

func parseEntryID(text string) entryID {
	ms, n, _ := strings.Cut(text, "-")
	var id entryID
	id.ms, _ = strconv.ParseInt(ms, 10, 64) // Redis made it.
	id.n, _ = strconv.ParseInt(n, 10, 64)
	return id
}

func (id entryID) compare(other entryID) int {
	return cmp.Or(cmp.Compare(id.ms, other.ms), cmp.Compare(id.n, other.n))
}

func (id entryID) String() string {
	return strconv.FormatInt(id.ms, 10) + "-" + strconv.FormatInt(id.n, 10)
}
