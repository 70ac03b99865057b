package deadletter_test

import (
	"testing"
	"time"

	"github.com/headgate/headgate/pkg/deadletter"
	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/pkg/outbox"
	"github.com/headgate/headgate/pkg/testkit"
)

// TestREL85NoReplayOfAnUncheckedDatabase is REL-85: while it is not known whether the
// database was restored, no replay is taken from it.
func TestREL85NoReplayOfAnUncheckedDatabase(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	if _, err := db.Exec(t.Context(), `CREATE TABLE checked ()`); err != nil {
		t.Fatal(err)
	}
	store := deadletter.New(db, outbox.New("test"), time.Now)
	i := &instance{t: t, store: store}
	id, _ := i.add()
	i.replay(id)
	replays := store.ReplaysIf(`EXISTS (SELECT FROM checked)`, testkit.Log(t))
	for want, statement := range []string{`DELETE FROM checked`, `INSERT INTO checked DEFAULT VALUES`} {
		if _, err := db.Exec(t.Context(), statement); err != nil {
			t.Fatal(err)
		}
		if taken, err := replays.Take(t.Context(), string(event.Email), 10); err != nil || len(taken) != want {
			t.Errorf("%s: %d replays were taken, %v, want %d", statement, len(taken), err, want)
		}
	}
}

// TestREL85ReplaysAreCanceled is REL-85: after a restore, replaying dead letters are open.
// The result of a replay that began before does not change that, and an operator can
// request it again.
func TestREL85ReplaysAreCanceled(t *testing.T) {
	t.Parallel()
	i := newInstance(t, newDatabase(t), 0)
	discarded, _ := i.add()
	if err := i.store.Discard(t.Context(), discarded, "a test"); err != nil {
		t.Fatal(err)
	}
	replayed, _ := i.add()
	i.replay(replayed)
	i.next().Ack()
	i.wantStatus(replayed, deadletter.Replayed)
	succeeds, _ := i.add()
	i.replay(succeeds)
	success := i.next()
	fails, _ := i.add()
	i.replay(fails)
	failure := i.next()

	if n, err := i.store.CancelReplays(t.Context()); err != nil || n != 2 {
		t.Errorf("CancelReplays() = %d, %v, want 2", n, err)
	}
	success.Ack()
	i.fail(failure)
	for id, status := range map[string]string{
		discarded: deadletter.Discarded, replayed: deadletter.Replayed, succeeds: deadletter.Open, fails: deadletter.Open,
	} {
		if detail := i.wantStatus(id, status); status == deadletter.Open && detail.ClosedBy != "" {
			t.Errorf("an open dead letter was closed by %q", detail.ClosedBy)
		}
	}
	i.replay(succeeds)
	i.next().Ack()
	i.wantStatus(succeeds, deadletter.Replayed)
}
