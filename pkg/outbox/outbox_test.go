package outbox_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/jackc/pgx/v5"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"

	"github.com/headgate/headgate/pkg/bus"
	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/pkg/outbox"
	"github.com/headgate/headgate/pkg/postgres"
	"github.com/headgate/headgate/pkg/testkit"
)

func TestMain(m *testing.M) {
	if database := os.Getenv(stoppedDatabase); database != "" {
		relayUntilStopped(database)
		return
	}
	testkit.Main(m)
}

func signedUp(ctx context.Context) event.Event {
	return event.New(ctx, time.Now(), "subject", event.UserSignedUp{Email: "a@example.com"})
}

// relay runs a relay until the test ends.
func relay(t *testing.T, db *postgres.Pool, client *redis.Client, publisher outbox.Publisher) {
	t.Helper()
	testkit.Run(t, outbox.NewRelay(db, publisher, newEpochs(t, db, client), testkit.Log(t), prometheus.NewRegistry()))
}

func newEpochs(t *testing.T, db *postgres.Pool, client redis.UniversalClient) *outbox.Epochs {
	t.Helper()
	return outbox.NewEpochs(db, client, "test", testkit.Log(t), prometheus.NewRegistry())
}

// wantUnpublished waits until a number of rows are not marked as published.
func wantUnpublished(t *testing.T, db *postgres.Pool, want int) {
	t.Helper()
	testkit.Eventually(t, func() error {
		var n int
		err := db.QueryRow(t.Context(), `SELECT count(*) FROM outbox WHERE published_at IS NULL`).Scan(&n)
		if err == nil && n != want {
			err = fmt.Errorf("%d rows are unpublished, want %d", n, want)
		}
		return err
	})
}

// published counts how often each event is on a stream.
func published(t *testing.T, client *redis.Client, topic event.Topic) map[string]int {
	t.Helper()
	entries, err := client.XRange(t.Context(), string(topic), "-", "+").Result()
	if err != nil {
		t.Fatal(err)
	}
	ids := map[string]int{}
	for _, entry := range entries {
		e, err := event.Parse([]byte(entry.Values["payload"].(string)))
		if err != nil {
			t.Fatalf("%v: %v", entry.Values, err)
		}
		ids[e.ID]++
	}
	return ids
}

func TestCommittedEventsArePublishedAndOthersNot(t *testing.T) {
	t.Parallel()
	db, client := testkit.Database(t, outbox.Schema()), testkit.Redis(t)
	box := outbox.New("test")
	kept, dropped := []event.Event{signedUp(t.Context())}, []event.Event{signedUp(t.Context())}
	boom := errors.New("boom")
	err := pgx.BeginFunc(t.Context(), db, func(tx pgx.Tx) error {
		if err := box.Add(t.Context(), tx, dropped...); err != nil {
			return err
		}
		return boom
	})
	if !errors.Is(err, boom) {
		t.Fatal(err)
	}
	relay(t, db, client, bus.NewPublisher(client))
	if err := pgx.BeginFunc(t.Context(), db, func(tx pgx.Tx) error { return box.Add(t.Context(), tx, kept...) }); err != nil {
		t.Fatal(err)
	}
	if kept[0].ID == "" || kept[0].Producer != "test" {
		t.Errorf("Add left the event as %+v", kept[0])
	}
	testkit.Eventually(t, func() error {
		for _, topic := range []event.Topic{event.Audit, event.User} {
			if ids := published(t, client, topic); len(ids) != 1 || ids[kept[0].ID] != 1 {
				return fmt.Errorf("%s has %v, want only %s", topic, ids, kept[0].ID)
			}
		}
		return nil
	})
	if n := client.Exists(t.Context(), string(event.Email)).Val(); n != 0 {
		t.Error("the event is on a stream that its contract does not name")
	}
}

// TestLateCommits holds a transaction open while later ones commit: a relay
// that followed ids would skip it.
func TestLateCommits(t *testing.T) {
	t.Parallel()
	db, client := testkit.Database(t, outbox.Schema()), testkit.Redis(t)
	box := outbox.New("test")
	relay(t, db, client, bus.NewPublisher(client))

	late, err := db.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	first, second := []event.Event{signedUp(t.Context())}, []event.Event{signedUp(t.Context())}
	if err := box.Add(t.Context(), late, first...); err != nil {
		t.Fatal(err)
	}
	if err := pgx.BeginFunc(t.Context(), db, func(tx pgx.Tx) error { return box.Add(t.Context(), tx, second...) }); err != nil {
		t.Fatal(err)
	}
	want := func(id string) func() error {
		return func() error {
			if published(t, client, event.Audit)[id] == 0 {
				return fmt.Errorf("event %s is not published", id)
			}
			return nil
		}
	}
	testkit.Eventually(t, want(second[0].ID))
	if err := late.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	testkit.Eventually(t, want(first[0].ID))
}

// TestSeveralRelays share the work without publishing twice.
func TestSeveralRelays(t *testing.T) {
	t.Parallel()
	db, client := testkit.Database(t, outbox.Schema()), testkit.Redis(t)
	box := outbox.New("test")
	const n = 1000
	err := pgx.BeginFunc(t.Context(), db, func(tx pgx.Tx) error {
		for range n {
			if err := box.Add(t.Context(), tx, signedUp(t.Context())); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		relay(t, db, client, bus.NewPublisher(client))
	}
	wantUnpublished(t, db, 0)
	ids := published(t, client, event.Audit)
	if len(ids) != n {
		t.Errorf("%d events published, want %d", len(ids), n)
	}
	for id, times := range ids {
		if times != 1 {
			t.Errorf("event %s published %d times", id, times)
		}
	}
}

// flaky fails once for each topic after it has published: the answer is lost.
type flaky struct {
	outbox.Publisher
	failed sync.Map // topics
}

func (f *flaky) PublishNumbered(topic string, highest []bus.HighestNumber, messages ...*message.Message) error {
	err := f.Publisher.PublishNumbered(topic, highest, messages...)
	if _, failed := f.failed.LoadOrStore(topic, true); !failed {
		return errors.Join(err, errors.New("connection lost"))
	}
	return err
}

func TestALostAnswerMakesADuplicateNotALoss(t *testing.T) {
	t.Parallel()
	db, client := testkit.Database(t, outbox.Schema()), testkit.Redis(t)
	events := []event.Event{signedUp(t.Context())}
	err := pgx.BeginFunc(t.Context(), db, func(tx pgx.Tx) error { return outbox.New("test").Add(t.Context(), tx, events...) })
	if err != nil {
		t.Fatal(err)
	}
	relay(t, db, client, &flaky{Publisher: bus.NewPublisher(client)})
	testkit.Eventually(t, func() error {
		if n := published(t, client, event.Audit)[events[0].ID]; n != 2 {
			return fmt.Errorf("published %d times, want 2", n)
		}
		return nil
	})
}

// TestBytesArePublishedAsTheyWereStored matters for what is signed or hashed.
func TestBytesArePublishedAsTheyWereStored(t *testing.T) {
	t.Parallel()
	db, client := testkit.Database(t, outbox.Schema()), testkit.Redis(t)
	events := []event.Event{event.New(t.Context(), time.Now(), "s", event.UserSignedUp{Name: "Zoë <&> \u2028"})}
	err := pgx.BeginFunc(t.Context(), db, func(tx pgx.Tx) error { return outbox.New("test").Add(t.Context(), tx, events...) })
	if err != nil {
		t.Fatal(err)
	}
	relay(t, db, client, bus.NewPublisher(client))
	testkit.Eventually(t, func() error {
		entries, err := client.XRange(t.Context(), string(event.Audit), "-", "+").Result()
		if err != nil || len(entries) == 0 {
			return errors.Join(errors.New("nothing published"), err)
		}
		var epoch string
		const current = `SELECT epoch FROM outbox_epochs WHERE topic = $1 AND last_seq IS NULL`
		if err := db.QueryRow(t.Context(), current, event.Audit).Scan(&epoch); err != nil || epoch == "" {
			t.Errorf("epoch %q, %v", epoch, err)
		}
		events[0].ProducerSeq, events[0].ProducerEpoch = 1, epoch
		want, err := json.Marshal(events[0])
		if err != nil {
			return err
		}
		if got := entries[0].Values["payload"]; got != string(want) {
			t.Errorf("published %s, want %s", got, want)
		}
		return nil
	})
}
