package outbox_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"

	"github.com/headgate/headgate/pkg/bus"
	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/pkg/outbox"
	"github.com/headgate/headgate/pkg/postgres"
	"github.com/headgate/headgate/pkg/testkit"
)

// SEC-108: the personal data of an erased subject leaves the outbox at once, also of events
// that are not published yet or are locked. Those are published without it, and no number is
// missing. Events of others stay as they are.
func TestSEC108ErasedSubjectsLeaveTheOutbox(t *testing.T) {
	t.Parallel()
	db, client := testkit.Database(t, outbox.Schema()), testkit.Redis(t)
	box := outbox.New("test")
	add := func(subject, email string) {
		t.Helper()
		ctx := event.WithOrigin(t.Context(), event.Origin{IP: "192.0.2.77", Actor: event.Actor{Type: "user", ID: subject}})
		err := pgx.BeginFunc(ctx, db, func(tx pgx.Tx) error {
			return box.Add(ctx, tx, event.New(ctx, time.Now(), subject, event.UserSignedUp{Email: email, Name: "Ann Other", Role: "user"}))
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	add("ann", "ann@example.com")
	add("bob", "bob@example.com")
	relaying := testkit.Run(t, outbox.NewRelay(db, bus.NewPublisher(client), newEpochs(t, db, client), testkit.Log(t), prometheus.NewRegistry()))
	wantOnStream(t, client, 2)
	// What is on the stream is not yet marked as published: the relay would lose that if it stopped.
	wantUnpublished(t, db, 0)
	relaying.Stop()
	add("ann", "ann@new.example.com")

	holder, err := db.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := holder.Exec(t.Context(), `SELECT FROM outbox WHERE subject = 'ann' AND published_at IS NULL FOR UPDATE`); err != nil {
		t.Fatal(err)
	}
	if err := outbox.RequestErasure(t.Context(), db, "ann"); err != nil {
		t.Fatal(err)
	}
	testkit.Run(t, outbox.NewEraser(db, testkit.Log(t)))
	wantRows(t, db, "ann@example.com", 0)
	wantRows(t, db, "ann@new.example.com", 2) // They are locked.
	if err := holder.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	wantRows(t, db, "ann@new.example.com", 0)
	wantRows(t, db, "Ann Other", 2) // bob's
	wantRows(t, db, "192.0.2.77", 2)
	relay(t, db, client, bus.NewPublisher(client))
	wantOnStream(t, client, 3)
	entries, err := client.XRange(t.Context(), string(event.Audit), "-", "+").Result()
	if err != nil {
		t.Fatal(err)
	}
	last, err := event.Parse([]byte(entries[2].Values["payload"].(string)))
	if err != nil || !last.Erased || last.ProducerSeq != 3 || strings.Contains(string(last.Data), "ann") || !strings.Contains(string(last.Data), `"role":"user"`) {
		t.Errorf("event after the erasure = %+v %s, %v", last, last.Data, err)
	}
}

func wantOnStream(t *testing.T, client *redis.Client, n int64) {
	t.Helper()
	testkit.Eventually(t, func() error {
		for _, topic := range []event.Topic{event.Audit, event.User} {
			if got, err := client.XLen(t.Context(), string(topic)).Result(); err != nil || got != n {
				return fmt.Errorf("%d entries on %s, want %d, %w", got, topic, n, err)
			}
		}
		return nil
	})
}

// wantRows waits until a number of rows of the outbox have a text.
func wantRows(t *testing.T, db *postgres.Pool, text string, n int) {
	t.Helper()
	testkit.Eventually(t, func() error {
		var got int
		if err := db.QueryRow(t.Context(), `SELECT count(*) FROM outbox WHERE strpos(payload::text, $1) > 0`, text).Scan(&got); err != nil || got != n {
			return fmt.Errorf("%d rows have %q, want %d, %w", got, text, n, err)
		}
		return nil
	})
}
