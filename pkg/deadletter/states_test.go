package deadletter_test

import (
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/google/uuid"

	"github.com/headgate/headgate/pkg/bus"
	"github.com/headgate/headgate/pkg/deadletter"
	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/pkg/outbox"
	"github.com/headgate/headgate/pkg/postgres"
	"github.com/headgate/headgate/pkg/problem"
	"github.com/headgate/headgate/pkg/testkit"
)

// instance is one process of a consumer, reduced to its replays: the test answers
// the messages.
type instance struct {
	t        *testing.T
	store    *deadletter.Store
	messages <-chan *message.Message
}

// newInstance returns an instance whose clock is ahead of the real one.
func newInstance(t *testing.T, db *postgres.Pool, ahead time.Duration) *instance {
	t.Helper()
	store := deadletter.New(db, outbox.New("test"), func() time.Time { return time.Now().Add(ahead) })
	replays := bus.NewPoller(store.Replays(testkit.Log(t)))
	messages, err := replays.Subscribe(t.Context(), string(event.Email))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := replays.Close(); err != nil {
			t.Error(err)
		}
	})
	return &instance{t: t, store: store, messages: messages}
}

// next returns the next message to be replayed. The test's end answers it if the
// test does not.
func (i *instance) next() *message.Message {
	i.t.Helper()
	select {
	case m, ok := <-i.messages:
		if !ok {
			i.t.Fatal("the replays ended")
		}
		i.t.Cleanup(func() { m.Nack() })
		return m
	case <-time.After(testkit.Timeout):
		i.t.Fatal("no message to replay")
		return nil
	}
}

// fail does what the consumer does with a message whose last attempt failed.
func (i *instance) fail(m *message.Message) {
	i.t.Helper()
	if err := i.store.Publish("", m); err != nil {
		i.t.Fatalf("Publish() = %v", err)
	}
	m.Ack()
}

// wantStatus waits until the dead letter has the status and returns it.
func (i *instance) wantStatus(id, status string) deadletter.Detail {
	i.t.Helper()
	var detail deadletter.Detail
	testkit.Eventually(i.t, func() (err error) {
		if detail, err = i.store.Get(i.t.Context(), id); err == nil && detail.Status != status {
			err = fmt.Errorf("dead letter is %s, want %s", detail.Status, status)
		}
		return err
	})
	if closed := status == deadletter.Replayed || status == deadletter.Discarded; (detail.ClosedAt != nil) != closed {
		i.t.Errorf("a dead letter that is %s was closed at %v", status, detail.ClosedAt)
	}
	return detail
}

// add stores a dead letter and returns its id and the message that failed.
func (i *instance) add() (id string, failed *message.Message) {
	i.t.Helper()
	_, payload := sealedEvent(i.t)
	failed = poisoned(i.t, payload, "the first fault")
	if err := i.store.Publish("", failed); err != nil {
		i.t.Fatalf("Publish() = %v", err)
	}
	deadLetters, err := i.store.List(i.t.Context(), deadletter.Filter{}, "", 1)
	if err != nil || len(deadLetters) != 1 {
		i.t.Fatalf("List() = %v, %v", deadLetters, err)
	}
	return deadLetters[0].ID, failed
}

func (i *instance) replay(id string) {
	i.t.Helper()
	if err := i.store.Replay(i.t.Context(), id); err != nil {
		i.t.Fatalf("Replay() = %v", err)
	}
}

func newDatabase(t *testing.T) *postgres.Pool {
	t.Helper()
	return testkit.Database(t, outbox.Schema(), deadletter.Schema())
}

func TestReplayThatSucceeds(t *testing.T) {
	t.Parallel()
	i := newInstance(t, newDatabase(t), 0)
	id, _ := i.add()
	i.wantStatus(id, deadletter.Open)
	i.replay(id)
	i.wantStatus(id, deadletter.Replaying)
	m := i.next()
	i.wantStatus(id, deadletter.Replaying)
	m.Ack()
	i.wantStatus(id, deadletter.Replayed)
	assertClosed(t, i, id, "This dead letter was already replayed.")
}

func TestReplayThatFails(t *testing.T) {
	t.Parallel()
	i := newInstance(t, newDatabase(t), 0)
	id, _ := i.add()
	i.replay(id)
	i.fail(i.next())
	if detail := i.wantStatus(id, deadletter.Open); detail.Attempts != 2 || detail.ClosedBy != "" {
		t.Errorf("detail = %+v, want two attempts and no closedBy", detail)
	}
	// It can be replayed once more, and also succeed.
	i.replay(id)
	i.next().Ack()
	i.wantStatus(id, deadletter.Replayed)
}

// TestReplayThatIsInterrupted: a consumer that stops before its answer leaves the
// replay to the next one.
func TestReplayThatIsInterrupted(t *testing.T) {
	t.Parallel()
	i := newInstance(t, newDatabase(t), 0)
	id, _ := i.add()
	i.replay(id)
	i.next().Nack()
	i.wantStatus(id, deadletter.Replaying)
	i.next().Ack()
	i.wantStatus(id, deadletter.Replayed)
}

// TestReplayAfterACrash: the lease of an instance that crashed expires, and
// another instance takes the replay over. An answer that comes after that changes
// nothing.
func TestReplayAfterACrash(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	crashed := newInstance(t, db, 0)
	id, _ := crashed.add()
	crashed.replay(id)
	lost := crashed.next()
	crashed.wantStatus(id, deadletter.Replaying)

	later := newInstance(t, db, 6*time.Minute)
	m := later.next()
	later.wantStatus(id, deadletter.Replaying)
	crashed.fail(lost)
	if detail := later.wantStatus(id, deadletter.Replaying); detail.Attempts != 2 {
		t.Errorf("%d attempts, want 2: the late one is on record", detail.Attempts)
	}
	m.Ack()
	later.wantStatus(id, deadletter.Replayed)
	if err := crashed.store.Publish("", lost); err != nil {
		t.Fatal(err)
	}
	later.wantStatus(id, deadletter.Replayed)
	deadLetters, err := later.store.List(t.Context(), deadletter.Filter{}, "", 10)
	if err != nil || len(deadLetters) != 1 {
		t.Errorf("List() = %+v, %v, want the one dead letter", deadLetters, err)
	}
}

// TestReplayThatTakesLong: the lease of a replay is renewed while it is in flight, so no
// other instance takes it over. A lease that has expired cannot be renewed.
func TestReplayThatTakesLong(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	var ahead atomic.Int64
	now := func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
	store := deadletter.New(db, outbox.New("test"), now)
	replays := store.Replays(testkit.Log(t))
	first := newInstance(t, db, 0)
	id, _ := first.add()
	first.replay(id)
	taken, err := replays.Take(t.Context(), string(event.Email), 1)
	if err != nil || len(taken) != 1 {
		// The instance may have been faster.
		taken = []*message.Message{first.next()}
	}
	m := taken[0]
	for ahead.Load() < int64(20*time.Minute) {
		ahead.Add(int64(replays.RenewEvery))
		if err := replays.Renew(t.Context(), m); err != nil {
			t.Fatalf("Renew() after %s = %v", time.Duration(ahead.Load()), err)
		}
		if stolen, err := replays.Take(t.Context(), string(event.Email), 1); err != nil || len(stolen) != 0 {
			t.Fatalf("Take() = %v, %v while the lease is renewed", stolen, err)
		}
	}
	ahead.Add(int64(6 * time.Minute))
	again, err := replays.Take(t.Context(), string(event.Email), 1)
	if err != nil || len(again) != 1 {
		t.Fatalf("Take() = %v, %v after the lease has expired", again, err)
	}
	if err := replays.Renew(t.Context(), m); err == nil {
		t.Error("Renew() = nil though the lease has expired")
	}
	if err := replays.Complete(t.Context(), m); err != nil {
		t.Error(err)
	}
	first.wantStatus(id, deadletter.Replaying)
	if err := replays.Complete(t.Context(), again[0]); err != nil {
		t.Error(err)
	}
	first.wantStatus(id, deadletter.Replayed)
}

// TestReplaysAreShared: each of many replays reaches one of two instances, once.
func TestReplaysAreShared(t *testing.T) {
	t.Parallel()
	const n = 40
	db := newDatabase(t)
	a, b := newInstance(t, db, 0), newInstance(t, db, 0)
	for range n {
		a.add()
	}
	if done, err := a.store.ReplayMatching(t.Context(), deadletter.Filter{}, n); err != nil || done.Requested != n {
		t.Fatalf("ReplayMatching() = %+v, %v", done, err)
	}
	seen := map[string]int{}
	for range n {
		select {
		case m := <-a.messages:
			seen[m.UUID]++
			m.Ack()
		case m := <-b.messages:
			seen[m.UUID]++
			m.Ack()
		case <-time.After(testkit.Timeout):
			t.Fatalf("%d messages, want %d", len(seen), n)
		}
	}
	if len(seen) != n {
		t.Errorf("%d different messages, want %d", len(seen), n)
	}
	testkit.Eventually(t, func() error {
		deadLetters, err := a.store.List(t.Context(), deadletter.Filter{Status: deadletter.Replayed}, "", n)
		if err == nil && len(deadLetters) != n {
			err = fmt.Errorf("%d dead letters are replayed, want %d", len(deadLetters), n)
		}
		return err
	})
}

func TestAReplayingDeadLetterIsNotOpen(t *testing.T) {
	t.Parallel()
	i := newInstance(t, newDatabase(t), 0)
	id, failed := i.add()
	i.replay(id)
	m := i.next()
	assertClosed(t, i, id, "This dead letter is being replayed. Wait for the result.")

	// The stream delivers the same message again, and it fails there: one dead
	// letter records both, and the replay decides.
	if err := i.store.Publish("", failed); err != nil {
		t.Fatal(err)
	}
	if detail := i.wantStatus(id, deadletter.Replaying); detail.Attempts != 2 {
		t.Errorf("%d attempts, want 2", detail.Attempts)
	}
	i.fail(m)
	i.wantStatus(id, deadletter.Open)
	deadLetters, err := i.store.List(t.Context(), deadletter.Filter{}, "", 10)
	if err != nil || len(deadLetters) != 1 {
		t.Errorf("List() = %+v, %v, want the one dead letter", deadLetters, err)
	}
	if err := i.store.Discard(t.Context(), id, "a test"); err != nil {
		t.Fatal(err)
	}
	i.wantStatus(id, deadletter.Discarded)
	assertClosed(t, i, id, "This dead letter was already discarded.")
}

// TestForeignMetadata: a message is not taken for a replay because its publisher uses
// the same names.
func TestForeignMetadata(t *testing.T) {
	t.Parallel()
	i := newInstance(t, newDatabase(t), 0)
	for n, id := range []string{"junk", uuid.NewString()} {
		m := poisoned(t, "raw", "a fault")
		m.Metadata.Set("headgate_dead_letter", id)
		m.Metadata.Set("headgate_lease", "junk")
		if err := i.store.Publish("", m); err != nil {
			t.Fatalf("Publish() = %v", err)
		}
		deadLetters, err := i.store.List(t.Context(), deadletter.Filter{}, "", 10)
		if err != nil || len(deadLetters) != n+1 {
			t.Errorf("List() = %+v, %v, want %d", deadLetters, err, n+1)
		}
	}
}

// assertClosed checks that nothing can be done with a dead letter, and why.
func assertClosed(t *testing.T, i *instance, id, message string) {
	t.Helper()
	for action, err := range map[string]error{
		"replay": i.store.Replay(t.Context(), id), "discard": i.store.Discard(t.Context(), id, "a test"),
	} {
		if !errors.Is(err, deadletter.ErrClosed) || problem.From(err).Message != message {
			t.Errorf("%s = %v, want dead_letter_closed: %s", action, err, message)
		}
	}
}

// TestPreviousRelease: instances of the release that knew only open, replayed and
// discarded work on the same rows during an upgrade.
func TestPreviousRelease(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	i := newInstance(t, db, 0)
	old := func(query string, args ...any) {
		t.Helper()
		if tag, err := db.Exec(t.Context(), query, args...); err != nil || tag.RowsAffected() != 1 {
			t.Fatalf("%s = %v, %v", query, tag, err)
		}
	}
	// Its replay is handled by this release.
	id, _ := i.add()
	old(`UPDATE dead_letters SET status = 'replayed', replay_due = $2, closed_at = $2, closed_by = 'admin:a' WHERE id = $1 AND status = 'open'`, id, time.Now())
	var status string
	if err := db.QueryRow(t.Context(), `SELECT status FROM dead_letters WHERE id = $1`, id).Scan(&status); err != nil || status != deadletter.Replaying {
		t.Errorf("status = %s, %v, want replaying", status, err)
	}
	i.next().Ack()
	i.wantStatus(id, deadletter.Replayed)

	// It handles a replay of this release.
	other := deadletter.New(db, outbox.New("test"), func() time.Time { return time.Now().Add(time.Hour) }) // not due for i
	id, failed := i.add()
	if err := other.Replay(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	// Meanwhile the message fails again on its stream.
	old(`INSERT INTO dead_letters (id, message_id, stream, entry_id, reason, class, attempts, payload, metadata, first_failed_at, last_failed_at)
		VALUES ($1, $2, 'email-events', '1-1', '', 'message', '[{}]', '', '{}', now(), now())
		ON CONFLICT (stream, message_id) WHERE status = 'open' DO UPDATE SET attempts = dead_letters.attempts || excluded.attempts`, uuid.New(), failed.UUID)
	old(`UPDATE dead_letters SET replay_due = NULL WHERE id = $1 AND replay_due IS NOT NULL`, id)
	if detail := i.wantStatus(id, deadletter.Replayed); detail.Attempts != 2 {
		t.Errorf("%d attempts, want 2", detail.Attempts)
	}
	// Its replay of a dead letter of this release fails.
	id, _ = i.add()
	if err := other.Replay(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	old(`UPDATE dead_letters SET status = 'open', replay_due = NULL, closed_at = NULL, closed_by = '' WHERE id = $1`, id)
	i.wantStatus(id, deadletter.Open)
}

// TestMigrationOfPendingReplays: what the previous release called replayed while
// the replay was pending is replaying afterwards, once for each message.
func TestMigrationOfPendingReplays(t *testing.T) {
	t.Parallel()
	db := testkit.Database(t, outbox.Schema(), testkit.Until(t, deadletter.Schema(), "00002"))
	const insert = `
		INSERT INTO dead_letters (id, message_id, event_id, stream, entry_id, reason, class, attempts, payload, metadata, status,
			first_failed_at, last_failed_at, replay_due)
		VALUES (uuidv7ish($1), $2, gen_random_uuid(), 'email-events', '1-1', '', 'message', '[]', '', '{}', $3, now(), now(), $4)`
	if _, err := db.Exec(t.Context(), `CREATE FUNCTION uuidv7ish(n int) RETURNS uuid LANGUAGE sql AS $$ SELECT ('00000000-0000-7000-8000-' || lpad(n::text, 12, '0'))::uuid $$`); err != nil {
		t.Fatal(err)
	}
	due := time.Now().Add(time.Hour)
	want := map[int]string{}
	for n, row := range []struct {
		message, status string
		due             *time.Time
		want            string
	}{
		{"done", "replayed", nil, "replayed"},
		{"pending", "replayed", &due, "replaying"},
		{"twice", "replayed", &due, "discarded"},
		{"twice", "replayed", &due, "replaying"},
		{"failed again", "replayed", &due, "discarded"},
		{"failed again", "open", nil, "open"},
		{"discarded", "discarded", nil, "discarded"},
	} {
		if _, err := db.Exec(t.Context(), insert, n, row.message, row.status, row.due); err != nil {
			t.Fatal(err)
		}
		want[n] = row.want
	}
	if err := postgres.Migrate(t.Context(), db, deadletter.Schema()); err != nil {
		t.Fatalf("Migrate() = %v", err)
	}
	for n, status := range want {
		var got string
		if err := db.QueryRow(t.Context(), `SELECT status FROM dead_letters WHERE id = uuidv7ish($1)`, n).Scan(&got); err != nil || got != status {
			t.Errorf("row %d is %s, %v, want %s", n, got, err, status)
		}
	}
}
