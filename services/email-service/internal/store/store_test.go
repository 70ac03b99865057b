package store_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/pkg/outbox"
	"github.com/headgate/headgate/pkg/postgres"
	"github.com/headgate/headgate/pkg/testkit"
	"github.com/headgate/headgate/services/email-service/internal/mail"
	"github.com/headgate/headgate/services/email-service/internal/store"
)

func TestMain(m *testing.M) { testkit.Main(m) }

func queued(t *testing.T, s *store.Store) mail.Delivery {
	t.Helper()
	now := time.Now().UTC()
	eventID := uuid.Must(uuid.NewV7()).String()
	m, err := s.Queue(t.Context(), mail.Delivery{
		ID: uuid.Must(uuid.NewV7()).String(), EventID: eventID, Template: "verification", UserID: "u", To: "a@example.org",
		MessageID: eventID + "@example.com", Status: mail.StatusQueued, CreatedAt: now, UpdatedAt: now,
	}, event.Event{ID: eventID, OccurredAt: now})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func sent(ctx context.Context) func(mail.Delivery) event.Event {
	return func(m mail.Delivery) event.Event {
		return event.New(ctx, time.Now(), m.UserID, event.EmailSent{MessageID: m.MessageID})
	}
}

// TestLockEndsWithItsProcess: while one instance sends, another does not, and need not wait
// for long to know it. It can send as soon as the connection of the first is lost, as
// happens when its process dies.
func TestLockEndsWithItsProcess(t *testing.T) {
	t.Parallel()
	url := testkit.DatabaseURL(t, outbox.Schema(), store.Schema())
	first, second := testkit.OpenDatabase(t, url), testkit.OpenDatabase(t, url)
	s := store.New(first, outbox.New("email-service"), time.Now, "true")
	m := queued(t, s)

	begun, end := make(chan struct{}), make(chan struct{})
	died := make(chan error, 1)
	go func() {
		died <- s.Send(context.WithoutCancel(t.Context()), m.ID, func(context.Context) error {
			close(begun)
			<-end
			return nil
		}, sent(t.Context()))
	}()
	<-begun
	var mails int
	other := func() error {
		return store.New(second, outbox.New("email-service"), time.Now, "true").Send(context.WithoutCancel(t.Context()), m.ID,
			func(context.Context) error {
				mails++
				return nil
			}, sent(t.Context()))
	}
	if err := other(); !errors.Is(err, mail.ErrLocked) || mails != 0 {
		t.Errorf("Send = %v and %d mails, want %v and none", err, mails, mail.ErrLocked)
	}
	const kill = `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND state = 'idle in transaction'`
	if _, err := first.Exec(t.Context(), kill); err != nil {
		t.Fatal(err)
	}
	testkit.Eventually(t, other)
	if mails != 1 {
		t.Errorf("%d mails, want one", mails)
	}
	close(end)
	if err := <-died; err == nil {
		t.Error("Send recorded a mail after it had lost the lock")
	}
	if got, err := s.Get(t.Context(), m.ID); err != nil || got.Status != mail.StatusSent {
		t.Errorf("message = %+v, %v", got, err)
	}
	wantEvents(t, first, 1)
}

// TestCloseRecordsWhatWasSent is REL-70: a process that stops leaves nothing unrecorded if
// the database is back, and else says so. It forgets no mail because it is stopping, or
// because a row is locked.
func TestCloseRecordsWhatWasSent(t *testing.T) {
	t.Parallel()
	db := testkit.Database(t, outbox.Schema(), store.Schema())
	s := store.New(db, outbox.New("email-service"), time.Now, "true")
	m := queued(t, s)
	for _, statement := range []string{
		`CREATE FUNCTION disk_full() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'full' USING ERRCODE = 'disk_full'; END $$`,
		`CREATE CONSTRAINT TRIGGER disk_full AFTER UPDATE ON messages DEFERRABLE INITIALLY DEFERRED
			FOR EACH ROW WHEN (NEW.status = 'sent') EXECUTE FUNCTION disk_full()`,
	} {
		if _, err := db.Exec(t.Context(), statement); err != nil {
			t.Fatal(err)
		}
	}
	mails := 0
	send := func(context.Context) error { mails++; return nil }
	for range 2 {
		if err := s.Send(t.Context(), m.ID, send, sent(t.Context())); err == nil || mails != 1 {
			t.Errorf("Send() = %v after %d mails, want an error after 1", err, mails)
		}
	}
	if err := s.Close(t.Context()); !errors.Is(err, mail.ErrNotRecorded) {
		t.Errorf("Close() = %v, want %v", err, mail.ErrNotRecorded)
	}
	stopped, stop := context.WithCancel(t.Context())
	stop()
	if _, err := s.TakeDue(stopped, "", 1); !errors.Is(err, mail.ErrNotRecorded) {
		t.Errorf("TakeDue() of a poller that stops = %v, want %v", err, mail.ErrNotRecorded)
	}
	if _, err := db.Exec(t.Context(), `DROP TRIGGER disk_full ON messages`); err != nil {
		t.Fatal(err)
	}
	locked, err := db.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := locked.Exec(t.Context(), `SELECT FROM messages FOR UPDATE`); err != nil {
		t.Fatal(err)
	}
	// A locked row delays no other mail, and is not forgotten.
	if _, err := s.TakeDue(t.Context(), "", 1); err != nil {
		t.Errorf("TakeDue() while a row is locked = %v", err)
	}
	if err := locked.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(t.Context()); err != nil {
		t.Errorf("Close() = %v", err)
	}
	if got, err := s.Get(t.Context(), m.ID); err != nil || got.Status != mail.StatusSent || got.Attempts != 1 {
		t.Errorf("message = %+v, %v", got, err)
	}
	wantEvents(t, db, 1)
}

// TestFailIsIdempotent: a failure is reported once, and a sent mail does not fail.
func TestFailIsIdempotent(t *testing.T) {
	t.Parallel()
	db := testkit.Database(t, outbox.Schema(), store.Schema())
	s := store.New(db, outbox.New("email-service"), time.Now, "true")
	m := queued(t, s)
	failed := event.New(t.Context(), time.Now(), "u", event.EmailFailed{MessageID: m.MessageID})
	fail := func() {
		t.Helper()
		if err := s.Fail(t.Context(), m.ID, "no\x00 such\xff user", failed); err != nil {
			t.Fatal(err)
		}
	}
	fail()
	fail()
	wantEvents(t, db, 1)
	if got, err := s.Get(t.Context(), m.ID); err != nil || got.Status != mail.StatusFailed || got.LastError != "no such user" {
		t.Errorf("message = %+v, %v", got, err)
	}
	// An operator has corrected the address and replays the event.
	if err := s.Send(t.Context(), m.ID, func(context.Context) error { return nil }, sent(t.Context())); err != nil {
		t.Fatal(err)
	}
	fail()
	wantEvents(t, db, 2)
	if got, err := s.Get(t.Context(), m.ID); err != nil || got.Status != mail.StatusSent || got.LastError != "" || got.SentAt.IsZero() {
		t.Errorf("message = %+v, %v", got, err)
	}
}

// TestREL86Unchecked is REL-86: in a database that may be an older copy, no mail is queued or
// sent, also not one that has failed.
func TestREL86Unchecked(t *testing.T) {
	t.Parallel()
	db := testkit.Database(t, outbox.Schema(), store.Schema())
	checked := store.New(db, outbox.New("email-service"), time.Now, "true")
	s := store.New(db, outbox.New("email-service"), time.Now, "false")
	m := queued(t, checked)
	failed := event.New(t.Context(), time.Now(), "u", event.EmailFailed{MessageID: m.MessageID})
	if err := checked.Fail(t.Context(), m.ID, "no such user", failed); err != nil {
		t.Fatal(err)
	}
	mails := 0
	send := func(context.Context) error { mails++; return nil }
	if err := s.Send(t.Context(), m.ID, send, sent(t.Context())); !errors.Is(err, mail.ErrDatabaseUnchecked) || mails != 0 {
		t.Errorf("Send() = %v after %d mails, want %v after none", err, mails, mail.ErrDatabaseUnchecked)
	}
	if got, err := s.Get(t.Context(), m.ID); err != nil || got.Status != mail.StatusFailed || got.Attempts != 0 {
		t.Errorf("message = %+v, %v, want it unchanged", got, err)
	}
	m.ID, m.EventID = uuid.NewString(), uuid.NewString()
	if _, err := s.Queue(t.Context(), m, event.Event{ID: m.EventID}); !errors.Is(err, mail.ErrDatabaseUnchecked) {
		t.Errorf("Queue() = %v, want %v", err, mail.ErrDatabaseUnchecked)
	}
	if _, err := s.Get(t.Context(), m.ID); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("Get() = %v, want that nothing was stored", err)
	}
	if err := s.Checked(t.Context()); !errors.Is(err, mail.ErrDatabaseUnchecked) {
		t.Errorf("Checked() = %v, want %v", err, mail.ErrDatabaseUnchecked)
	}
}

// TestOtherEventsDoNotWaitForTheMailServer: an event that is added while the mail server is
// asked wakes the relay.
func TestOtherEventsDoNotWaitForTheMailServer(t *testing.T) {
	t.Parallel()
	url := testkit.DatabaseURL(t, outbox.Schema(), store.Schema())
	db, listening := testkit.OpenDatabase(t, url), testkit.OpenDatabase(t, url)
	box := outbox.New("email-service")
	s := store.New(db, box, time.Now, "true")
	m := queued(t, s)
	listener, err := listening.Acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Release()
	if _, err := listener.Exec(t.Context(), `LISTEN outbox`); err != nil {
		t.Fatal(err)
	}
	wantWoken := func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, testkit.Timeout)
		defer cancel()
		_, err := listener.Conn().WaitForNotification(ctx)
		return err
	}
	send := func(ctx context.Context) error {
		other := event.New(ctx, time.Now(), "u", event.EmailFailed{MessageID: "other"})
		if err := pgx.BeginFunc(ctx, db, func(tx pgx.Tx) error { return box.Add(ctx, tx, other) }); err != nil {
			return err
		}
		return wantWoken(ctx)
	}
	if err := s.Send(t.Context(), m.ID, send, sent(t.Context())); err != nil {
		t.Errorf("Send() = %v", err)
	}
	wantEvents(t, db, 2)
	s = store.New(db, outbox.New("email-service"), time.Now, "true") // It has woken nobody yet.
	m = queued(t, s)
	if err := s.Send(t.Context(), m.ID, func(context.Context) error { return nil }, sent(t.Context())); err != nil {
		t.Errorf("Send() = %v", err)
	}
	if err := wantWoken(t.Context()); err != nil {
		t.Errorf("the relay is not woken after the commit: %v", err)
	}
}

func TestGetUnknown(t *testing.T) {
	t.Parallel()
	s := store.New(testkit.Database(t, outbox.Schema(), store.Schema()), outbox.New("email-service"), time.Now, "true")
	if _, err := s.Get(t.Context(), uuid.NewString()); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("Get = %v, want %v", err, store.ErrNotFound)
	}
}

func wantEvents(t *testing.T, db *postgres.Pool, want int) {
	t.Helper()
	var n int
	if err := db.QueryRow(t.Context(), `SELECT count(*) FROM outbox`).Scan(&n); err != nil || n != want {
		t.Errorf("%d events in the outbox, %v, want %d", n, err, want)
	}
}

// TestSendAfterAChangeOfTheSchema: a mail is sent at the first attempt, and once, even if the
// statements were prepared before the schema changed.
func TestSendAfterAChangeOfTheSchema(t *testing.T) {
	t.Parallel()
	db := testkit.Database(t, outbox.Schema(), store.Schema())
	s := store.New(db, outbox.New("email-service"), time.Now, "true")
	mails := 0
	send := func(context.Context) error { mails++; return nil }
	// Both are queued now, so that the change meets only statements of Send.
	first, second := queued(t, s), queued(t, s)
	if err := s.Send(t.Context(), first.ID, send, sent(t.Context())); err != nil {
		t.Fatal(err)
	}
	other := testkit.OpenDatabase(t, db.Config().ConnString())
	if _, err := other.Exec(t.Context(), `ALTER TABLE messages ALTER last_error TYPE varchar(1000), ALTER attempts TYPE bigint`); err != nil {
		t.Fatal(err)
	}
	if err := s.Send(t.Context(), second.ID, send, sent(t.Context())); err != nil || mails != 2 {
		t.Errorf("Send() = %v after %d mails, want no error after 2", err, mails)
	}
	wantEvents(t, db, 2)
}
