package bus_test

import (
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"

	"github.com/headgate/headgate/pkg/bus"
	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/pkg/testkit"
)

// gauges returns the values of the gauges in a registry, by name and labels:
// headgate_stream_lag{audit-service,audit-events}.
func gauges(t *testing.T, reg *prometheus.Registry) map[string]float64 {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	values := map[string]float64{}
	for _, family := range families {
		for _, m := range family.GetMetric() {
			var labels []string
			for _, label := range m.GetLabel() {
				labels = append(labels, label.GetValue())
			}
			values[family.GetName()+"{"+strings.Join(labels, ",")+"}"] = m.GetGauge().GetValue()
		}
	}
	return values
}

// TestMonitorSilentShard is REL-81: while the server of one stream does not answer, the
// values of the streams on other servers stay, whichever server is asked for the time.
func TestMonitorSilentShard(t *testing.T) {
	t.Parallel()
	c := startCluster(t, bus.EventTimeout, "--cluster-require-full-coverage", "no")
	const shard = 1 // of email-events; audit-events is on 0
	reg, log := prometheus.NewRegistry(), &testkit.Buffer{}
	testkit.Run(t, bus.NewMonitor(bus.MonitorConfig{
		Client: c.client, Topics: []event.Topic{event.Email, event.Audit}, Interval: 100 * time.Millisecond,
		Log: slog.New(slog.NewTextHandler(log, nil)), Metrics: reg,
	}))
	length := func(topic event.Topic) float64 {
		n, ok := gauges(t, reg)["headgate_stream_length{"+string(topic)+"}"]
		if !ok {
			return -1
		}
		return n
	}
	testkit.Eventually(t, func() error {
		if email, audit := length(event.Email), length(event.Audit); email != 0 || audit != 0 {
			return fmt.Errorf("lengths %v and %v, want 0", email, audit)
		}
		return nil
	})
	if err := do(t, c.ports[shard], "CLIENT", "PAUSE", "60000", "ALL"); err != nil {
		t.Fatal(err)
	}
	for start := time.Now(); time.Since(start) < 8*time.Second; {
		testkit.Publish(t, c.client, event.Audit, testkit.NewEvent(t.Context(), "subject", event.UserLoggedIn{}))
		want := float64(c.client.XLen(t.Context(), string(event.Audit)).Val())
		testkit.Within(t, 30*time.Second, func() error {
			if got := length(event.Audit); got != want {
				return fmt.Errorf("length of audit-events = %v, want %v", got, want)
			}
			return nil
		})
	}
	if n := log.Count("level="); n > 1 {
		t.Errorf("%d lines, want at most one:\n%s", n, log)
	}
}

// TestMonitor is REL-64: what a consumer has not handled is visible while the consumer
// does not run, even if it has never run, and so are groups that belong to no service.
func TestMonitor(t *testing.T) {
	t.Parallel()
	client, reg, log := testkit.Redis(t), prometheus.NewRegistry(), &testkit.Buffer{}
	testkit.Run(t, bus.NewMonitor(bus.MonitorConfig{
		Client: client, Topics: event.Topics(), MaxBytes: 2000, Interval: 20 * time.Millisecond,
		Log: slog.New(slog.NewTextHandler(log, nil)), Metrics: reg,
	}))
	want := func(name string, least, most float64) {
		t.Helper()
		testkit.Eventually(t, func() error {
			got, ok := gauges(t, reg)[name]
			if !ok || got < least || got > most {
				return fmt.Errorf("%s = %v, %t, want %v to %v", name, got, ok, least, most)
			}
			return nil
		})
	}
	const ofGroup, topic = "{email-service,email-events}", "email-events"
	want("headgate_stream_lag"+ofGroup, 0, 0)
	want("headgate_stream_over_limit{email-events}", 0, 0)

	// The service has never run.
	var events []event.Event
	for range 30 {
		events = append(events, testkit.NewEvent(t.Context(), "subject", event.UserLoggedIn{}))
	}
	testkit.Publish(t, client, event.Email, events...)
	want("headgate_stream_lag"+ofGroup, 30, 30)
	want("headgate_stream_oldest_unread_seconds"+ofGroup, 0.2, 60)
	want("headgate_stream_length{email-events}", 30, 30)
	want("headgate_stream_bytes{email-events}", 2000, 1e6)
	want("headgate_stream_over_limit{email-events}", 1, 1)

	// It has read some entries and died.
	if err := client.XGroupCreate(t.Context(), topic, "email-service", "0").Err(); err != nil {
		t.Fatal(err)
	}
	read, err := client.XReadGroup(t.Context(), &redis.XReadGroupArgs{Group: "email-service", Consumer: "dead", Count: 10, Streams: []string{topic, ">"}}).Result()
	if err != nil {
		t.Fatal(err)
	}
	want("headgate_stream_lag"+ofGroup, 20, 20)
	want("headgate_stream_pending"+ofGroup, 10, 10)
	want("headgate_stream_oldest_pending_seconds"+ofGroup, 0.3, 60)
	want("headgate_stream_oldest_unread_seconds"+ofGroup, 0.3, 60)

	// It catches up.
	rest, err := client.XReadGroup(t.Context(), &redis.XReadGroupArgs{Group: "email-service", Consumer: "live", Streams: []string{topic, ">"}}).Result()
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range append(read[0].Messages, rest[0].Messages...) {
		if err := client.XAck(t.Context(), topic, "email-service", entry.ID).Err(); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"lag", "pending", "oldest_pending_seconds", "oldest_unread_seconds"} {
		want("headgate_stream_"+name+ofGroup, 0, 0)
	}
	// An entry that comes long after the last one is not as old as that one.
	if err := client.Do(t.Context(), "XGROUP", "SETID", topic, "email-service", "1-0", "ENTRIESREAD", 30).Err(); err != nil {
		t.Fatal(err)
	}
	want("headgate_stream_oldest_unread_seconds"+ofGroup, 0, 0)
	testkit.Publish(t, client, event.Email, testkit.NewEvent(t.Context(), "subject", event.UserLoggedIn{}))
	want("headgate_stream_oldest_unread_seconds"+ofGroup, 0.01, 10)

	// A foreign group comes and goes.
	if err := client.XGroupCreate(t.Context(), topic, "stranger", "0").Err(); err != nil {
		t.Fatal(err)
	}
	want("headgate_stream_foreign_groups{email-events}", 1, 1)
	want("headgate_stream_lag{stranger,email-events}", 31, 31)
	if n := log.Count("group=stranger"); n != 1 {
		t.Errorf("%d lines about the foreign group, want 1", n)
	}
	if err := client.XGroupDestroy(t.Context(), topic, "stranger").Err(); err != nil {
		t.Fatal(err)
	}
	want("headgate_stream_foreign_groups{email-events}", 0, 0)
	if _, ok := gauges(t, reg)["headgate_stream_lag{stranger,email-events}"]; ok {
		t.Error("the lag of a group that exists no more is still exported")
	}
}
