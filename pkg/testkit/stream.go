package testkit

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"
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
// stores it. The producer is the first that may publish it.
func NewEvent(ctx context.Context, subject string, p event.Payload) event.Event {
	e := event.New(ctx, time.Now(), subject, p)
	e.ID, e.Producer = uuid.Must(uuid.NewV7()).String(), "test"
	if publishers := event.PublishersOf(e.Name); len(publishers) > 0 {
		e.Producer = publishers[0]
	}
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
	m.Metadata.Set(bus.NameKey, e.Name)
	return m
}

// signingSecret is that of all producers in tests. Their keys differ nevertheless.
const signingSecret = "testkit signs events: 7Gx2mQ9vLd4sKp8wZr5t" //nolint:gosec // It protects nothing.

// Signer returns the signer of a producer's events. Programs that testkit starts know the
// public keys of all services that publish.
func Signer(t testing.TB, producer string) *event.Signer {
	t.Helper()
	s, err := event.NewSigner(producer, signingSecret)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// publicKeys is EVENT_PUBLIC_KEYS for the keys of Signer.
var publicKeys = sync.OnceValue(func() string {
	var lines []string
	for _, producer := range event.Producers() {
		s, err := event.NewSigner(producer, signingSecret)
		if err != nil {
			panic(err) // The secret above is long enough.
		}
		lines = append(lines, s.PublicKey())
	}
	return strings.Join(lines, ",")
})

// Authenticity returns a check of events that knows the public keys of Signer.
func Authenticity(t testing.TB, log *slog.Logger, reg prometheus.Registerer) *bus.Authenticity {
	t.Helper()
	cfg := bus.PublicKeys{EventPublicKeys: publicKeys(), EventSignatures: "require"}
	keys, err := cfg.Keys(service.Common{})
	if err != nil {
		t.Fatal(err)
	}
	return bus.NewAuthenticity(cfg, keys, log, reg)
}

// Publish publishes events on a stream, in their order, signed by their producers.
func Publish(t testing.TB, client redis.UniversalClient, topic event.Topic, events ...event.Event) {
	t.Helper()
	for _, e := range events {
		if err := bus.NewSigningPublisher(client, Signer(t, e.Producer)).Publish(string(topic), Message(t, e)); err != nil {
			t.Fatal(err)
		}
	}
}

// WantAcknowledged waits until the only consumer group of a stream has acknowledged every
// entry.
func WantAcknowledged(t testing.TB, client redis.UniversalClient, topic event.Topic) {
	t.Helper()
	Eventually(t, func() error {
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
