package testkit

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/google/uuid"
	"github.com/redis/go-redis/v9"

	"github.com/headgate/headgate/pkg/bus"
	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/pkg/service"
)

// Running is a running part of a service.
type Running struct {
	Cancel context.CancelFunc // stops the part, without waiting
	Stop   func()             // stops the part and waits; its error fails the test
}

// Run runs a part of a service until it is stopped or the test ends.
func Run(t testing.TB, part service.Runner) Running {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- part.Run(ctx) }()
	r := Running{Cancel: cancel, Stop: sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("%T: %v", part, err)
		}
	})}
	t.Cleanup(r.Stop)
	return r
}

// NewEvent returns the event that p happened to subject now, as a producer's outbox
// stores it.
func NewEvent(ctx context.Context, subject string, p event.Payload) event.Event {
	e := event.New(ctx, time.Now(), subject, p)
	e.ID, e.Producer = uuid.Must(uuid.NewV7()).String(), "test"
	return e
}

// Message returns e as the relay publishes it.
func Message(t testing.TB, e event.Event) *message.Message {
	t.Helper()
	data, err := json.Marshal(e)
	if err != nil {
		t.Fatal(err)
	}
	m := message.NewMessage(e.ID, data)
	m.Metadata.Set("name", e.Name)
	return m
}

// Publish publishes events on a stream, in their order.
func Publish(t testing.TB, client redis.UniversalClient, topic event.Topic, events ...event.Event) {
	t.Helper()
	stream := bus.NewPublisher(client)
	for _, e := range events {
		if err := stream.Publish(string(topic), Message(t, e)); err != nil {
			t.Fatal(err)
		}
	}
}

// WantAcknowledged waits until the only consumer group of a stream has acknowledged every
// entry.
func WantAcknowledged(t testing.TB, client redis.UniversalClient, topic event.Topic) {
	t.Helper()
	Eventually(t, 20*time.Second, func() error {
		groups, err := client.XInfoGroups(t.Context(), string(topic)).Result()
		if err != nil {
			return err
		}
		if len(groups) != 1 {
			return fmt.Errorf("%d groups, want 1", len(groups))
		}
		if groups[0].Pending > 0 || groups[0].Lag != 0 {
			return fmt.Errorf("group = %+v", groups[0])
		}
		return nil
	})
}

// OpenRedis returns a client with the timeout for each operation. It is closed when
// the test ends.
func OpenRedis(t testing.TB, address string, timeout time.Duration) redis.UniversalClient {
	t.Helper()
	client, err := bus.Redis{RedisURL: service.Secret(address)}.Open(timeout)
	if err != nil {
		t.Fatalf("open Redis: %v", err)
	}
	t.Cleanup(func() {
		if err := client.Close(); err != nil && !errors.Is(err, redis.ErrClosed) {
			t.Errorf("close Redis: %v", err)
		}
	})
	return client
}
