package bus_test

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/jackc/pgx/v5"

	"github.com/headgate/headgate/pkg/bus"
	"github.com/headgate/headgate/pkg/deadletter"
	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/pkg/postgres"
	"github.com/headgate/headgate/pkg/testkit"
)

// rows is a table with a row for each message, some of which another transaction has
// locked.
type rows struct {
	db *postgres.Pool
	tx pgx.Tx
}

func newRows(t *testing.T, db *postgres.Pool) *rows {
	t.Helper()
	if _, err := db.Exec(t.Context(), `CREATE TABLE handled (id text PRIMARY KEY, times integer NOT NULL DEFAULT 0)`); err != nil {
		t.Fatal(err)
	}
	return &rows{db: db}
}

// lock locks the rows of the messages until unlock.
func (r *rows) lock(t *testing.T, messages ...*message.Message) {
	t.Helper()
	var err error
	for _, m := range messages {
		if _, err := r.db.Exec(t.Context(), `INSERT INTO handled (id) VALUES ($1)`, m.UUID); err != nil {
			t.Fatal(err)
		}
	}
	if r.tx, err = r.db.Begin(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := r.tx.Exec(t.Context(), `SELECT 1 FROM handled FOR UPDATE`); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.tx.Rollback(context.Background()) }) // It may be over.
}

func (r *rows) unlock(t *testing.T) {
	t.Helper()
	if err := r.tx.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func (r *rows) handle(f *fixture) bus.Handler {
	return func(ctx context.Context, e event.Event) error {
		// A quarter of a second instead of the services' 2.5 s.
		err := pgx.BeginFunc(ctx, r.db, func(tx pgx.Tx) error {
			if _, err := tx.Exec(ctx, `SET LOCAL lock_timeout = '250ms'`); err != nil {
				return err
			}
			_, err := tx.Exec(ctx, `INSERT INTO handled (id, times) VALUES ($1, 1) ON CONFLICT (id) DO UPDATE SET times = handled.times + 1`, e.ID)
			return err
		})
		if err != nil {
			return fmt.Errorf("handle %s: %w", e.ID, err)
		}
		return f.count(ctx, e)
	}
}

// TestLockedRows is REL-60: the rows of more messages than the window and the wait
// list have room for are locked. The other messages are handled as ever, the consumer
// is not paused, and no message becomes a dead letter. When the rows are unlocked,
// their messages are handled.
func TestLockedRows(t *testing.T) {
	t.Parallel()
	f := newFixture(t, testkit.Redis(t))
	r := newRows(t, f.db)
	var locked, healthy []*message.Message
	for range 30 {
		locked, healthy = append(locked, newMessage(t, event.UserLoggedIn{})), append(healthy, newMessage(t, event.UserLoggedIn{}))
	}
	r.lock(t, locked...)
	f.publish(locked...)
	f.isolated = time.Hour
	f.consume("a", r.handle(f), func(cfg *bus.SubscriberConfig) { cfg.Window, cfg.WaitList = 8, 12 })
	f.publish(healthy...)
	f.wantSeen(healthy...)
	f.wantPaused(0)
	f.wantDeadLetters(0)
	f.mu.Lock()
	for _, m := range locked {
		if f.seen[m.UUID] != 0 {
			t.Errorf("message %s was handled though its row is locked", m.UUID)
		}
	}
	f.mu.Unlock()
	r.unlock(t)
	testkit.Eventually(t, func() error {
		f.mu.Lock()
		defer f.mu.Unlock()
		if len(f.seen) != len(locked)+len(healthy) {
			return fmt.Errorf("%d messages were handled of %d", len(f.seen), len(locked)+len(healthy))
		}
		return nil
	})
	f.wantNothingPending()
	f.wantDeadLetters(0)
}

// TestRetryBesideLockedRows is REL-60: an event that fails once has its second attempt
// about a second later, however many events on the wait list find their rows locked.
func TestRetryBesideLockedRows(t *testing.T) {
	t.Parallel()
	f := newFixture(t, testkit.Redis(t))
	r := newRows(t, f.db)
	var locked []*message.Message
	for range 200 {
		locked = append(locked, newMessage(t, event.UserLoggedIn{}))
	}
	r.lock(t, locked...)
	f.publish(locked...)
	f.isolated = time.Hour
	unlucky := newMessage(t, event.UserLoggedIn{})
	var failed atomic.Bool
	handle := r.handle(f)
	f.consume("a", func(ctx context.Context, e event.Event) error {
		if e.ID == unlucky.UUID && !failed.Swap(true) {
			return errors.New("fails once")
		}
		return handle(ctx, e)
	}, func(cfg *bus.SubscriberConfig) { cfg.Window = 16 })
	testkit.Eventually(t, func() error {
		if n := f.waiting(); n < len(locked) {
			return fmt.Errorf("%d events are on the wait list", n)
		}
		return nil
	})
	f.publish(unlucky)
	testkit.Eventually(t, func() error {
		f.mu.Lock()
		defer f.mu.Unlock()
		if f.seen[unlucky.UUID] == 0 {
			return errors.New("the event that failed once was not handled")
		}
		return nil
	})
}

// TestLockedRowForTooLong: a message whose row is locked for longer than
// IsolatedFailureTimeout becomes a dead letter, and its replay succeeds.
func TestLockedRowForTooLong(t *testing.T) {
	t.Parallel()
	f := newFixture(t, testkit.Redis(t))
	r := newRows(t, f.db)
	locked := newMessage(t, event.UserLoggedIn{})
	r.lock(t, locked)
	f.publish(locked)
	f.due = []message.Subscriber{bus.NewPoller(f.deadLetters.Replays(testkit.Log(t)))}
	f.consume("a", r.handle(f))
	deadLetter := f.wantDeadLetters(1)[0]
	if deadLetter.Class != "message" || deadLetter.Attempts != 1 || *deadLetter.EventID != locked.UUID {
		t.Errorf("dead letter = %+v", deadLetter)
	}
	f.wantNothingPending()
	r.unlock(t)
	if err := f.deadLetters.Replay(t.Context(), deadLetter.ID); err != nil {
		t.Fatal(err)
	}
	f.wantSeen(locked)
}

// TestReplayOfLockedRow is REL-60: the replay of a message whose row is still locked fails
// after IsolatedFailureTimeout, like the message itself.
func TestReplayOfLockedRow(t *testing.T) {
	t.Parallel()
	f := newFixture(t, testkit.Redis(t))
	r := newRows(t, f.db)
	locked := newMessage(t, event.UserLoggedIn{})
	r.lock(t, locked)
	f.publish(locked)
	f.due = []message.Subscriber{bus.NewPoller(f.deadLetters.Replays(testkit.Log(t)))}
	f.consume("a", r.handle(f))
	id := f.wantDeadLetters(1)[0].ID
	if err := f.deadLetters.Replay(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	testkit.Eventually(t, func() error {
		detail, err := f.deadLetters.Get(t.Context(), id)
		if err == nil && (detail.Status != deadletter.Open || detail.Attempts != 2) {
			err = fmt.Errorf("dead letter is %s after %d attempts, want open after 2", detail.Status, detail.Attempts)
		}
		return err
	})
}

// TestReplaysOfLockedRows is REL-60 for replays: those whose rows are locked do not delay
// the others, though there are more than a poller may have in flight.
func TestReplaysOfLockedRows(t *testing.T) {
	t.Parallel()
	f := newFixture(t, testkit.Redis(t))
	r := newRows(t, f.db)
	var locked []*message.Message
	for range 12 {
		locked = append(locked, newMessage(t, event.UserLoggedIn{}))
	}
	r.lock(t, locked...)
	healthy := newMessage(t, event.UserLoggedIn{})
	for _, m := range append(locked, healthy) {
		m.Metadata.Set(bus.TopicKey, string(event.Audit))
		if err := f.deadLetters.Publish("", m); err != nil {
			t.Fatal(err)
		}
		if _, err := f.deadLetters.ReplayMatching(t.Context(), deadletter.Filter{Status: deadletter.Open}, 1); err != nil {
			t.Fatal(err)
		}
	}
	replays := f.deadLetters.Replays(testkit.Log(t))
	replays.Limit = 4
	f.due, f.isolated = []message.Subscriber{bus.NewPoller(replays)}, time.Hour
	f.consume("a", r.handle(f))
	f.wantSeen(healthy)
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.seen) != 1 {
		t.Errorf("%d messages were handled, want 1", len(f.seen))
	}
}

// TestDeadLettersUnavailable: messages that cannot become dead letters, because those
// cannot be stored, do not stop the others, however many there are.
func TestDeadLettersUnavailable(t *testing.T) {
	t.Parallel()
	f := newFixture(t, testkit.Redis(t))
	if _, err := f.db.Exec(t.Context(), `ALTER TABLE dead_letters ADD CONSTRAINT none CHECK (false)`); err != nil {
		t.Fatal(err)
	}
	bad := map[string]bool{}
	var messages []*message.Message
	for range 30 {
		m := newMessage(t, event.UserLoggedIn{})
		bad[m.UUID] = true
		messages = append(messages, m)
	}
	f.publish(messages...)
	f.consume("a", func(ctx context.Context, e event.Event) error {
		if bad[e.ID] {
			return bus.Permanent(errors.New("poison"))
		}
		return f.count(ctx, e)
	}, func(cfg *bus.SubscriberConfig) { cfg.Window, cfg.WaitList = 8, 12 })
	good := newMessage(t, event.UserLoggedIn{})
	f.publish(good)
	f.wantSeen(good)
	if _, err := f.db.Exec(t.Context(), `ALTER TABLE dead_letters DROP CONSTRAINT none`); err != nil {
		t.Fatal(err)
	}
	testkit.Eventually(t, func() error {
		deadLetters, err := f.deadLetters.List(t.Context(), deadletter.Filter{}, "", 100)
		if err == nil && len(deadLetters) != len(bad) {
			err = fmt.Errorf("%d dead letters of %d", len(deadLetters), len(bad))
		}
		return err
	})
	f.wantNothingPending()
}
