package bus_test

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/headgate/headgate/pkg/bus"
	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/pkg/service"
	"github.com/headgate/headgate/pkg/testkit"
)

// TestOriginInLog is REL-77: at the level info, a consumer logs a line with the request id
// of the origin for each event that it handles, and for each attempt that fails.
func TestOriginInLog(t *testing.T) {
	t.Parallel()
	f := newFixture(t, testkit.Redis(t))
	log := &testkit.Buffer{}
	permanent := errors.New("no such thing")
	testkit.Run(t, bus.NewConsumer(bus.ConsumerConfig{
		Topic:      event.Audit,
		Subscriber: bus.NewSubscriber(bus.SubscriberConfig{Client: f.client, Group: "test", Consumer: "a", Log: testkit.Log(t)}),
		Rest: func(_ context.Context, e event.Event) error {
			if e.RequestID == "request-2" {
				return bus.Permanent(permanent)
			}
			return nil
		},
		DeadLetters: f.deadLetters,
		Log:         service.NewLogger(log, "test", service.Common{LogLevel: "info", LogFormat: "json"}),
		Metrics:     prometheus.NewRegistry(),
	}))
	for i := range 3 {
		ctx := event.WithOrigin(t.Context(), event.Origin{RequestID: fmt.Sprintf("request-%d", i)})
		f.publish(testkit.Message(t, testkit.NewEvent(ctx, "subject", event.UserLoggedIn{})))
	}
	testkit.Eventually(t, func() error {
		for i, text := range []string{"event handled", "event handled", "event handler failed"} {
			if n := log.Count(fmt.Sprintf(`"msg":"%s"`, text)); n == 0 {
				return fmt.Errorf("no line %q", text)
			}
			if n := log.Count(fmt.Sprintf(`"request_id":"request-%d"`, i)); n != 1 {
				return fmt.Errorf("%d lines with the id of request %d, want 1", n, i)
			}
		}
		return nil
	})
}
