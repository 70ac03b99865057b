package tests

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"

	"github.com/headgate/headgate/pkg/bus"
	"github.com/headgate/headgate/pkg/deadletter"
	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/pkg/outbox"
	"github.com/headgate/headgate/pkg/testkit"
)

// TestSEC118ForgeriesByServices is SEC-118: whatever a service writes to Redis, with its own
// user and its own key, no consumer acts upon an event of another service.
func TestSEC118ForgeriesByServices(t *testing.T) {
	t.Parallel()
	server := startDeployedRedis(t, testPasswords())
	for _, topic := range event.Topics() {
		group := topic.Groups()[0]
		acted := make(chan event.Event, 100)
		db := testkit.Database(t, outbox.Schema(), deadletter.Schema())
		deadLetters := deadletter.New(db, outbox.New(group), time.Now)
		client := server.as(group)
		t.Cleanup(func() { client.Close() })
		reg := prometheus.NewRegistry()
		testkit.Run(t, bus.NewConsumer(bus.ConsumerConfig{
			Topic:        topic,
			Subscriber:   bus.NewSubscriber(bus.SubscriberConfig{Client: client, Group: group, Consumer: "a", Log: testkit.Log(t)}),
			Authenticity: testkit.Authenticity(t, testkit.Log(t), reg),
			Rest: func(_ context.Context, e event.Event) error {
				acted <- e
				return nil
			},
			DeadLetters: deadLetters, Log: testkit.Log(t), Metrics: reg,
		}))
		want := map[string]string{} // by event id, the beginning of the reason
		for _, writer := range []string{"auth-service", "user-service", "email-service", "audit-service", "gateway"} {
			for reason, m := range forgeriesBy(t, writer, topic) {
				if addAs(t, server, writer, topic, m) {
					want[m.UUID], _, _ = strings.Cut(reason, ":")
				}
			}
		}
		genuine := testkit.NewEvent(t.Context(), "ann", event.UserDeleted{})
		testkit.Publish(t, server.as("auth-service"), topic, genuine)
		select {
		case e := <-acted:
			if e.ID != genuine.ID {
				t.Errorf("%s acted upon %s, which claims to be of %s", group, e.Name, e.Producer)
			}
		case <-time.After(30 * time.Second):
			t.Errorf("%s did not act upon the genuine event", group)
		}
		wantRefused(t, deadLetters, want)
		if n := len(acted); n > 0 {
			t.Errorf("%s acted upon %d events more", group, n)
		}
	}
}

// forgeriesBy returns what a service could add to a stream with the key that it has, by the
// reason why it is refused.
func forgeriesBy(t *testing.T, writer string, topic event.Topic) map[string]*message.Message {
	t.Helper()
	own := testkit.Signer(t, writer)
	signed := func(e event.Event, on event.Topic) *message.Message {
		m := testkit.Message(t, e)
		m.Metadata.Set(bus.KeyIDKey, own.KeyID())
		m.Metadata.Set(bus.SignatureKey, own.Sign(on, e.ID, e.Name, m.Payload))
		return m
	}
	deleted := func() event.Event { return testkit.NewEvent(t.Context(), "ann", event.UserDeleted{}) }
	found := map[string]*message.Message{"unsigned: deletion": testkit.Message(t, deleted())}
	if writer != "auth-service" {
		mine, revoked := deleted(), testkit.NewEvent(t.Context(), "ann", event.SessionRevoked{SessionID: "s"})
		mine.Producer, revoked.OccurredAt = writer, time.Date(2099, 1, 1, 0, 0, 0, 0, time.UTC)
		found["forged: another's name"] = signed(deleted(), topic)
		found["forged: revocation of 2099"] = signed(revoked, topic)
		found["wrong producer: deletion"] = signed(mine, topic)
		return found
	}
	elsewhere := event.Audit
	if topic == event.Audit {
		elsewhere = event.User
	}
	found["forged: of another stream"] = signed(deleted(), elsewhere)
	return found
}

// addAs adds an entry as the Redis user of a service. It reports whether Redis let it.
func addAs(t *testing.T, server *deployedRedis, writer string, topic event.Topic, m *message.Message) bool {
	t.Helper()
	client := server.as(writer)
	defer client.Close()
	err := bus.NewPublisher(client).Publish(string(topic), m)
	if err != nil && !refused(err) {
		t.Fatal(err)
	}
	return err == nil
}

func wantRefused(t *testing.T, deadLetters *deadletter.Store, want map[string]string) {
	t.Helper()
	testkit.Eventually(t, 30*time.Second, func() error {
		found, err := deadLetters.List(t.Context(), deadletter.Filter{}, "", 100)
		if err != nil || len(found) != len(want) {
			return fmt.Errorf("%d dead letters, %w, want %d", len(found), err, len(want))
		}
		for _, d := range found {
			if d.EventID == nil || !strings.HasPrefix(d.Reason, want[*d.EventID]) {
				t.Errorf("dead letter %+v, want the reason %q", d, want[*d.EventID])
			}
		}
		return nil
	})
}

// TestSEC118OthersKeys is SEC-118: no service can write what another says of its events: its
// watermark, its known numbers, and what a consumer has consumed or requests.
func TestSEC118OthersKeys(t *testing.T) {
	t.Parallel()
	server := startDeployedRedis(t, testPasswords())
	for _, topic := range event.Topics() {
		for _, producer := range topic.Producers() {
			for _, writer := range []string{"auth-service", "user-service", "email-service", "audit-service", "gateway"} {
				client := server.as(writer)
				consumes := topic.Groups()[0] == writer
				for name, tc := range map[string]struct {
					err error
					may bool
				}{
					"watermark":          {client.Set(t.Context(), "watermark:published:{"+string(topic)+"}:"+producer, "{}", 0).Err(), writer == producer},
					"known number":       {client.ZAdd(t.Context(), "published:{"+string(topic)+"}:"+producer, redis.Z{Member: "m", Score: 1}).Err(), writer == producer},
					"consumed watermark": {client.HSet(t.Context(), "watermark:consumed:{"+string(topic)+"}", "g", "{}").Err(), consumes},
					"request":            {client.HSet(t.Context(), "republish:requested:"+string(topic)+":"+producer, "g", "{}").Err(), consumes},
				} {
					if got := !refused(tc.err); got != tc.may {
						t.Errorf("%s may write the %s of %s on %s: %v, want %v (%v)", writer, name, producer, topic, got, tc.may, tc.err)
					}
				}
				client.Close()
			}
		}
	}
}
