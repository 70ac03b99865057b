package outbox_test

import (
	"fmt"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/headgate/headgate/pkg/bus"
	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/pkg/outbox"
	"github.com/headgate/headgate/pkg/testkit"
)

// gauges returns the values of a gauge by topic.
func gauges(t *testing.T, reg *prometheus.Registry, name string) map[string]float64 {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	values := map[string]float64{}
	for _, family := range families {
		if family.GetName() != name {
			continue
		}
		for _, metric := range family.GetMetric() {
			values[metric.GetLabel()[0].GetValue()] = metric.GetGauge().GetValue()
		}
	}
	return values
}

// TestBacklog is REL-48: the metrics of the outbox show within seconds what waits on
// which topic and for how long, also while publishing fails.
func TestBacklog(t *testing.T) {
	t.Parallel()
	db, client, reg := testkit.Database(t, outbox.Schema()), testkit.Redis(t), prometheus.NewRegistry()
	if err := client.Set(t.Context(), string(event.Email), "not a stream", 0).Err(); err != nil {
		t.Fatal(err)
	}
	testkit.Run(t, outbox.NewRelay(db, bus.NewPublisher(client), newEpochs(t, db, client), testkit.Log(t), reg))
	addEvents(t, db, 1, "one", event.Audit)
	addEvents(t, db, 600, "one", event.Email)
	if _, err := db.Exec(t.Context(), `UPDATE outbox SET created_at = now() - interval '90 s' WHERE id = (SELECT min(id) FROM outbox WHERE topic = $1)`, event.Email); err != nil {
		t.Fatal(err)
	}
	want := func(email, audit float64, aged func(seconds float64) bool) {
		t.Helper()
		// On a busy machine a measurement takes long, and the pause after it is 20 times that.
		testkit.Eventually(t, func() error {
			rows, age := gauges(t, reg, "headgate_outbox_unpublished"), gauges(t, reg, "headgate_outbox_oldest_seconds")
			if rows[string(event.Email)] != email || rows[string(event.Audit)] != audit || len(rows) != 2 {
				return fmt.Errorf("rows = %v", rows)
			}
			if !aged(age[string(event.Email)]) || age[string(event.Audit)] != 0 {
				return fmt.Errorf("seconds = %v", age)
			}
			return nil
		})
	}
	want(600, 0, func(seconds float64) bool { return seconds >= 90 && seconds < 180 })
	addEvents(t, db, 5, "one", event.Email)
	want(605, 0, func(seconds float64) bool { return seconds >= 90 && seconds < 240 })
	client.Del(t.Context(), string(event.Email))
	want(0, 0, func(seconds float64) bool { return seconds == 0 })
}
