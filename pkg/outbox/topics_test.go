package outbox_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"

	"github.com/headgate/headgate/pkg/bus"
	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/pkg/outbox"
	"github.com/headgate/headgate/pkg/postgres"
	"github.com/headgate/headgate/pkg/testkit"
)

// addEvents adds n events of a subject, which go to the topics.
func addEvents(t *testing.T, db *postgres.Pool, n int, subject string, topics ...event.Topic) {
	t.Helper()
	box := outbox.New("test")
	err := pgx.BeginFunc(t.Context(), db, func(tx pgx.Tx) error {
		events := make([]event.Event, n)
		for i := range events {
			events[i] = event.New(t.Context(), time.Now(), subject, event.UserLoggedIn{})
			events[i].Topics = topics
		}
		return box.Add(t.Context(), tx, events...)
	})
	if err != nil {
		t.Fatal(err)
	}
}

// entries returns how many entries a stream has.
func entries(t *testing.T, client *redis.Client, topic event.Topic) int64 {
	t.Helper()
	n, err := client.XLen(t.Context(), string(topic)).Result()
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func wantEntries(t *testing.T, within time.Duration, client *redis.Client, topic event.Topic, want int64) {
	t.Helper()
	testkit.Within(t, within, func() error {
		if n := entries(t, client, topic); n != want {
			return fmt.Errorf("%d entries on %s, want %d", n, topic, want)
		}
		return nil
	})
}

// hanging is a broker that does not answer for one topic, as a Cluster whose shard is
// down, until it is repaired.
type hanging struct {
	outbox.Publisher
	topic    event.Topic
	repaired chan struct{}
}

func (h *hanging) PublishNumbered(topic string, highest []bus.HighestNumber, messages ...*message.Message) error {
	if topic == string(h.topic) {
		select {
		case <-h.repaired:
		case <-messages[0].Context().Done():
			return errors.New("no answer")
		}
	}
	return h.Publisher.PublishNumbered(topic, highest, messages...)
}

// TestBrokenStream is REL-45: while one stream cannot be written, whatever the reason,
// and has more rows than a batch, the events of the other streams are published. Once it
// can be written again, it gets all of its events.
func TestBrokenStream(t *testing.T) {
	t.Parallel()
	const waiting = 600
	for name, fault := range map[string]func(*testing.T, *redis.Client) (broker outbox.Publisher, repair func()){
		"WRONGTYPE": func(t *testing.T, client *redis.Client) (outbox.Publisher, func()) {
			t.Helper()
			if err := client.Set(t.Context(), string(event.Email), "not a stream", 0).Err(); err != nil {
				t.Fatal(err)
			}
			return bus.NewPublisher(client), func() { client.Del(t.Context(), string(event.Email)) }
		},
		"NOPERM": func(t *testing.T, client *redis.Client) (outbox.Publisher, func()) {
			t.Helper()
			name := "test-" + uuid.NewString()
			admin := client.Conn()
			setUser := func(rules ...any) {
				t.Helper()
				if err := admin.Do(context.Background(), append([]any{"ACL", "SETUSER", name}, rules...)...).Err(); err != nil {
					t.Fatal(err)
				}
			}
			setUser("on", "nopass", "+@all", "~"+string(event.Audit), "~"+string(event.User), "~published:*")
			options := *client.Options()
			options.Username, options.Password = name, "any"
			limited := redis.NewClient(&options)
			t.Cleanup(func() {
				admin.Do(context.Background(), "ACL", "DELUSER", name)
				admin.Close()
				limited.Close()
			})
			return bus.NewPublisher(limited), func() { setUser("allkeys") }
		},
		"no answer": func(t *testing.T, client *redis.Client) (outbox.Publisher, func()) {
			t.Helper()
			broker := &hanging{bus.NewPublisher(client), event.Email, make(chan struct{})}
			return broker, func() { close(broker.repaired) }
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db, client := testkit.Database(t, outbox.Schema()), testkit.Redis(t)
			broker, repair := fault(t, client)
			addEvents(t, db, waiting, "one", event.Email)
			addEvents(t, db, 1, "two", event.Email, event.Audit)
			relay(t, db, client, broker)
			wantEntries(t, testkit.Timeout, client, event.Audit, 1)
			addEvents(t, db, 1, "one", event.Email, event.User)
			wantEntries(t, testkit.Timeout, client, event.User, 1)
			repair()
			wantEntries(t, testkit.Timeout, client, event.Email, waiting+2)
		})
	}
}

// TestUnknownTopic: the rows of a topic that this release does not know are published.
func TestUnknownTopic(t *testing.T) {
	t.Parallel()
	db, client := testkit.Database(t, outbox.Schema()), testkit.Redis(t)
	relay(t, db, client, bus.NewPublisher(client))
	addEvents(t, db, 3, "subject", "billing-events", event.Audit)
	wantEntries(t, testkit.Timeout, client, "billing-events", 3)
	wantEntries(t, testkit.Timeout, client, event.Audit, 3)
}

// refusing is a broker that is away until it is back.
type refusing struct {
	outbox.Publisher
	back  atomic.Bool
	calls atomic.Int64
}

func (r *refusing) PublishNumbered(topic string, highest []bus.HighestNumber, messages ...*message.Message) error {
	if r.calls.Add(1); !r.back.Load() {
		return errors.New("connection refused")
	}
	return r.Publisher.PublishNumbered(topic, highest, messages...)
}

// TestOutageLog is REL-49: a relay logs a line when the broker goes away and a line when
// it is back, however many topics and attempts fail.
func TestOutageLog(t *testing.T) {
	t.Parallel()
	db, client, log := testkit.Database(t, outbox.Schema()), testkit.Redis(t), &testkit.Buffer{}
	broker := &refusing{Publisher: bus.NewPublisher(client)}
	testkit.Run(t, outbox.NewRelay(db, broker, newEpochs(t, db, client), slog.New(slog.NewTextHandler(log, nil)), prometheus.NewRegistry()))
	addEvents(t, db, 5, "subject", event.Audit, event.User, event.Email)
	testkit.Eventually(t, func() error {
		if n := broker.calls.Load(); n < 9 {
			return fmt.Errorf("%d attempts", n)
		}
		return nil
	})
	if n := log.Count("level="); n != 1 {
		t.Errorf("%d lines while the broker is away, want 1", n)
	}
	broker.back.Store(true)
	for _, topic := range []event.Topic{event.Audit, event.User, event.Email} {
		wantEntries(t, testkit.Timeout, client, topic, 5)
	}
	testkit.Eventually(t, func() error {
		if n := log.Count("publishing resumed"); n != 1 || log.Count("level=") != 2 {
			return fmt.Errorf("%d lines say that publishing has resumed, of %d", n, log.Count("level="))
		}
		return nil
	})
}
