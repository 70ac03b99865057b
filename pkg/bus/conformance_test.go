package bus_test

import (
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/ThreeDotsLabs/watermill/pubsub/tests"
	"github.com/google/uuid"

	"github.com/headgate/headgate/pkg/bus"
	"github.com/headgate/headgate/pkg/testkit"
)

// TestConformance is Watermill's own suite for publishers and subscribers.
func TestConformance(t *testing.T) {
	t.Parallel()
	client := testkit.Redis(t)
	build := func(t *testing.T, group string) (message.Publisher, message.Subscriber) {
		t.Helper()
		return bus.NewPublisher(client), bus.NewSubscriber(bus.SubscriberConfig{
			Client: client, Group: group, Consumer: uuid.NewString(), Log: testkit.Log(t),
			Window: 32, MaxIdle: 3 * time.Second, NackBackoff: 5 * time.Millisecond, DrainTimeout: time.Second,
		})
	}
	tests.TestPubSub(t,
		tests.Features{ConsumerGroups: true, Persistent: true, ForceShort: true},
		func(t *testing.T) (message.Publisher, message.Subscriber) {
			t.Helper()
			return build(t, "test")
		},
		build,
	)
}
