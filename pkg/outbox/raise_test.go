package outbox_test

import (
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/jackc/pgx/v5"

	"github.com/headgate/headgate/pkg/bus"
	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/pkg/outbox"
	"github.com/headgate/headgate/pkg/testkit"
)

// counted counts the calls of a publisher.
type counted struct {
	outbox.Publisher

	calls atomic.Int64
}

func (c *counted) PublishNumbered(topic string, highest []bus.HighestNumber, messages ...*message.Message) error {
	c.calls.Add(1)
	return c.Publisher.PublishNumbered(topic, highest, messages...)
}

// TestNumbersCannotBeRaised is REL-45: Redis adds entries although it cannot raise the
// highest number, because its key has the wrong type. The relay does not add them again at
// each attempt, and goes on when the key is gone.
func TestNumbersCannotBeRaised(t *testing.T) {
	t.Parallel()
	const known = "published:{audit-events}:test"
	db, client := testkit.Database(t, outbox.Schema()), testkit.Redis(t)
	publisher, box := &counted{Publisher: bus.NewPublisher(client)}, outbox.New("test")
	relay(t, db, client, publisher)
	add := func(n int) {
		t.Helper()
		err := pgx.BeginFunc(t.Context(), db, func(tx pgx.Tx) error {
			for range n {
				if err := box.Add(t.Context(), tx, event.New(t.Context(), time.Now(), "subject", event.SessionRefreshed{})); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	add(1)
	wantUnpublished(t, db, 0)
	if err := client.Set(t.Context(), known, "x", 0).Err(); err != nil {
		t.Fatal(err)
	}
	before := publisher.calls.Load()
	add(2)
	testkit.Eventually(t, func() error {
		if n := publisher.calls.Load() - before; n < 4 {
			return fmt.Errorf("%d attempts", n)
		}
		return nil
	})
	wantUnpublished(t, db, 2)
	wantAdded(t, client, 3)
	if err := client.Del(t.Context(), known).Err(); err != nil {
		t.Fatal(err)
	}
	wantUnpublished(t, db, 0)
	wantAdded(t, client, 5)
}
