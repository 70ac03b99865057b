package api_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	gosmtp "github.com/emersion/go-smtp"
	"github.com/google/uuid"

	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/pkg/outbox"
	"github.com/headgate/headgate/pkg/reconcile"
	"github.com/headgate/headgate/pkg/testkit"
	"github.com/headgate/headgate/services/email-service/internal/mail"
	"github.com/headgate/headgate/services/email-service/internal/store"
)

// handledSeq is the highest number of an event that the lost database had handled.
const handledSeq = 50

// occurred returns an event for a mail to the address that occurred at a time and that
// the lost database had handled.
func (s *service) occurred(to string, at time.Time) event.Event {
	e := s.requested(to, nil)
	e.OccurredAt, e.ProducerSeq = at.UTC(), handledSeq
	return e
}

func (s *service) store() *store.Store {
	return store.New(s.db, outbox.New("email-service"), time.Now, "true")
}

func (s *service) withhold(until time.Time) {
	s.t.Helper()
	if err := s.store().Withhold(s.t.Context(), reconcile.Handled{
		Until: until, Numbers: map[string]map[string]int64{"auth-service": {"": handledSeq, "other": 99}},
	}); err != nil {
		s.t.Fatal(err)
	}
}

func (s *service) resume(skipBefore time.Time) store.Resumed {
	s.t.Helper()
	resumed, err := s.store().Resume(s.t.Context(), skipBefore)
	if err != nil {
		s.t.Fatal(err)
	}
	return resumed
}

func (s *service) events(name string) int {
	s.t.Helper()
	var n int
	if err := s.db.QueryRow(s.t.Context(), `SELECT count(*) FROM outbox WHERE name = $1`, name).Scan(&n); err != nil {
		s.t.Fatal(err)
	}
	return n
}

// wantPostponed waits for a deferred mail and moves its next attempt into the future.
func (s *service) wantPostponed() {
	s.t.Helper()
	testkit.Eventually(s.t, func() error {
		tag, err := s.db.Exec(s.t.Context(), `UPDATE messages SET next_attempt_at = now() + interval '1 hour' WHERE status = 'deferred'`)
		if err == nil && tag.RowsAffected() != 1 {
			err = fmt.Errorf("%d deferred mails, want 1", tag.RowsAffected())
		}
		return err
	})
}

// TestREL71RestoredDatabase is REL-71: after the database was restored, mails of events
// that the lost one had handled wait for an operator, and fresh mails do not.
func TestREL71RestoredDatabase(t *testing.T) {
	t.Parallel()
	s := newService(t)
	to, deferredTo, fresh := newAddress(), newAddress(), newAddress()
	s.smtp.OnRcpt(func(rcpt string) error {
		if rcpt == deferredTo {
			return &gosmtp.SMTPError{Code: 451, EnhancedCode: gosmtp.EnhancedCode{4, 3, 0}, Message: "later"}
		}
		return nil
	})
	now := time.Now()
	deferred := s.occurred(deferredTo, now.Add(-time.Hour))
	s.publish(deferred)
	s.wantPostponed()

	s.withhold(now)
	s.withhold(now) // The hook may be called twice.
	s.smtp.OnRcpt(nil)
	long, recent := s.occurred(to, now.Add(-48*time.Hour)), s.occurred(to, now.Add(-time.Minute))
	expired := s.requested(to, func(p *event.UserVerificationRequested) { p.ExpiresAt = time.Now().Add(-time.Second) })
	expired.OccurredAt, expired.ProducerSeq = now.Add(-time.Minute).UTC(), 1
	ahead := s.occurred(to, now.Add(time.Hour))     // The producer's clock was wrong.
	s.publish(long, recent, expired, ahead)         // They are published again, because their records are gone.
	after := s.occurred(fresh, now.Add(-time.Hour)) // The producer's clock is wrong.
	after.ProducerSeq = handledSeq + 1
	s.publish(after)
	s.wantMails(fresh, 1)
	s.wantAcknowledged()
	for _, e := range []event.Event{long, recent, expired, ahead} {
		s.wantStatus(e, mail.StatusWithheld, 0)
	}
	if withheld, err := s.store().Withheld(t.Context()); err != nil || withheld.Mails != 5 || withheld.HandledUntil.Sub(now).Abs() > time.Millisecond {
		t.Errorf("Withheld() = %+v, %v, want 5 mails", withheld, err)
	}
	s.publish(recent) // A redelivery changes nothing.
	s.wantAcknowledged()
	s.wantMails(to, 0)

	if resumed := s.resume(now.Add(-24 * time.Hour)); resumed != (store.Resumed{Restores: 1, Due: 3, Suppressed: 2}) {
		t.Errorf("Resume() = %+v, want 3 due and 2 suppressed", resumed)
	}
	s.wantMails(to, 1)
	s.wantMails(deferredTo, 1)
	s.wantStatus(long, mail.StatusSuppressed, 0)
	s.wantStatus(ahead, mail.StatusSuppressed, 0)
	s.wantStatus(recent, mail.StatusSent, 1)
	s.wantStatus(expired, mail.StatusFailed, 0)

	// The decision also applies to what is published again later.
	lateOld, lateRecent := s.occurred(to, now.Add(-25*time.Hour)), s.occurred(to, now.Add(-2*time.Minute))
	lateAhead := s.occurred(to, now.Add(time.Hour))
	s.publish(lateOld, lateAhead, lateRecent)
	s.wantMails(to, 2)
	s.wantAcknowledged()
	s.wantStatus(lateOld, mail.StatusSuppressed, 0)
	s.wantStatus(lateAhead, mail.StatusSuppressed, 0)
	s.wantStatus(lateRecent, mail.StatusSent, 1)
	if resumed := s.resume(time.Time{}); resumed != (store.Resumed{}) {
		t.Errorf("a second Resume() = %+v, want nothing", resumed)
	}
	if withheld, err := s.store().Withheld(t.Context()); err != nil || !withheld.Since.IsZero() {
		t.Errorf("Withheld() = %+v, %v, want nothing", withheld, err)
	}
	if n := s.events("email.resumed.v1"); n != 1 {
		t.Errorf("%d email.resumed events, want 1", n)
	}
	if len(s.smtp.To(fresh)) != 1 || len(s.smtp.To(deferredTo)) != 1 {
		t.Error("a mail was sent twice")
	}
}

// TestWithheldWithoutEvent: a delivery that the restored database has as queued gets its event
// when that is published again, and is sent after Resume.
func TestWithheldWithoutEvent(t *testing.T) {
	t.Parallel()
	for name, arrivesFirst := range map[string]bool{"event arrives before Resume": true, "event arrives after Resume": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newService(t)
			to := newAddress()
			e := s.occurred(to, time.Now().Add(-time.Hour))
			queued, err := s.store().Queue(t.Context(), mail.Delivery{
				ID: uuid.Must(uuid.NewV7()).String(), EventID: e.ID, Template: "verification", UserID: e.Subject, To: to,
				MessageID: e.ID + "@example.com", CreatedAt: time.Now(), UpdatedAt: time.Now(),
			}, e)
			if err != nil || queued.Status != mail.StatusQueued {
				t.Fatalf("Queue() = %+v, %v", queued, err)
			}
			s.withhold(time.Now())
			if arrivesFirst {
				s.publish(e)
				s.wantAcknowledged()
				s.wantStatus(e, mail.StatusWithheld, 0)
			}
			s.resume(time.Time{})
			if !arrivesFirst {
				s.publish(e)
			}
			s.wantMails(to, 1)
			s.wantStatus(e, mail.StatusSent, 1)
		})
	}
}

// TestNothingIsTakenFromAnUncheckedDatabase: what is due waits until somebody knows
// whether the database was restored.
func TestNothingIsTakenFromAnUncheckedDatabase(t *testing.T) {
	t.Parallel()
	s := newServiceWithoutConsumer(t)
	s.exec(`CREATE TABLE checked (checked boolean)`)
	e := s.occurred(newAddress(), time.Now().Add(-time.Hour))
	s.withhold(time.Now())
	if d, err := s.store().Queue(t.Context(), mail.Delivery{
		ID: uuid.Must(uuid.NewV7()).String(), EventID: e.ID, Template: "verification", CreatedAt: time.Now(), UpdatedAt: time.Now(),
	}, e); err != nil || d.Status != mail.StatusWithheld {
		t.Fatalf("Queue() = %+v, %v", d, err)
	}
	s.exec(`UPDATE restores SET resumed_at = now()`) // by an operator whose command was interrupted
	take := store.New(s.db, outbox.New("email-service"), time.Now, `EXISTS (SELECT FROM checked)`).TakeDue
	if due, err := take(t.Context(), "", 32); err != nil || len(due) != 0 {
		t.Errorf("take() = %d messages, %v, want none", len(due), err)
	}
	s.wantStatus(e, mail.StatusWithheld, 0)
	s.exec(`INSERT INTO checked VALUES (true)`)
	if due, err := take(t.Context(), "", 32); err != nil || len(due) != 1 {
		t.Errorf("take() = %d messages, %v, want 1", len(due), err)
	}
}

// TestWithholdAndResumeManyMails: thousands of mails are withheld and resumed in batches.
func TestWithholdAndResumeManyMails(t *testing.T) {
	t.Parallel()
	s := newServiceWithoutConsumer(t)
	const n = 2345
	s.exec(fmt.Sprintf(`
		INSERT INTO messages (id, event_id, template, user_id, recipient, message_id, request_id, status, created_at, updated_at, event, next_attempt_at)
		SELECT gen_random_uuid(), gen_random_uuid(), 'verification', '', 'a@example.org', '', '', 'deferred',
			now() - n * interval '1 minute', now(), '{}', now() + interval '1 hour'
		FROM generate_series(1, %d) AS n`, n))
	s.withhold(time.Now())
	if withheld, err := s.store().Withheld(t.Context()); err != nil || withheld.Mails != n {
		t.Fatalf("Withheld() = %+v, %v, want %d mails", withheld, err, n)
	}
	resumed := s.resume(time.Now().Add(-100*time.Minute - 30*time.Second))
	if resumed.Due != 100 || resumed.Suppressed != n-100 {
		t.Errorf("Resume() = %+v, want 100 due and %d suppressed", resumed, n-100)
	}
}

// TestEverythingInTheCopyIsWithheld is REL-71 for mails whose time is in the future, because
// the clock of email-service was ahead, and for those about which an operator had decided
// before the backup, while the decision was not applied to all of them.
func TestEverythingInTheCopyIsWithheld(t *testing.T) {
	t.Parallel()
	s := newServiceWithoutConsumer(t)
	s.withhold(time.Now())
	const insert = `
		INSERT INTO messages (id, event_id, template, user_id, recipient, message_id, request_id, status, created_at, updated_at, event, restore_id)
		SELECT gen_random_uuid(), gen_random_uuid(), 'verification', '', 'a@example.org', '', '', status,
			now() + interval '1 hour', now(), '{}', CASE WHEN status = 'withheld' THEN (SELECT max(id) FROM restores) END
		FROM unnest(ARRAY['queued', 'sending', 'deferred', 'withheld', 'sent', 'failed', 'suppressed']) AS status`
	s.exec(insert)
	s.exec(`UPDATE restores SET resumed_at = now()`)
	s.withhold(time.Now())
	const want = 4
	if withheld, err := s.store().Withheld(t.Context()); err != nil || withheld.Mails != want {
		t.Errorf("Withheld() = %+v, %v, want %d mails", withheld, err, want)
	}
	if due, err := s.store().TakeDue(t.Context(), "", 32); err != nil || len(due) != 0 {
		t.Errorf("TakeDue() = %d messages, %v, want none", len(due), err)
	}
	if resumed := s.resume(time.Now().Add(-time.Hour)); resumed != (store.Resumed{Restores: 1, Suppressed: want}) {
		t.Errorf("Resume() = %+v, want %d suppressed", resumed, want)
	}
}

// TestWithholdWaitsForLockedRows: a mail that is locked at that moment is withheld, too, or
// Withhold fails and is called again.
func TestWithholdWaitsForLockedRows(t *testing.T) {
	t.Parallel()
	s := newServiceWithoutConsumer(t)
	e := s.occurred(newAddress(), time.Now().Add(-time.Hour))
	if _, err := s.store().Queue(t.Context(), mail.Delivery{
		ID: uuid.Must(uuid.NewV7()).String(), EventID: e.ID, Template: "verification", CreatedAt: time.Now(), UpdatedAt: time.Now(),
	}, e); err != nil {
		t.Fatal(err)
	}
	locked, err := s.db.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := locked.Exec(t.Context(), `SELECT FROM messages FOR UPDATE`); err != nil {
		t.Fatal(err)
	}
	short, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if err := s.store().Withhold(short, reconcile.Handled{Until: time.Now()}); err == nil {
		t.Error("Withhold() succeeded while a mail that it has to withhold was locked")
	}
	if err := locked.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.withhold(time.Now())
	s.wantStatus(e, mail.StatusWithheld, 0)
}

// TestResumedMailIsRetried: a mail that was withheld for longer than a deferred mail is
// retried is retried for as long after it was resumed.
func TestResumedMailIsRetried(t *testing.T) {
	t.Parallel()
	s := newServiceWithoutConsumer(t)
	to := newAddress()
	var attempts atomic.Int64
	s.smtp.OnRcpt(func(string) error {
		if attempts.Add(1) == 1 {
			return &gosmtp.SMTPError{Code: 451, EnhancedCode: gosmtp.EnhancedCode{4, 3, 0}, Message: "later"}
		}
		return nil
	})
	e := s.occurred(to, time.Now().Add(-72*time.Hour))
	if _, err := s.store().Queue(t.Context(), mail.Delivery{
		ID: uuid.Must(uuid.NewV7()).String(), EventID: e.ID, Template: "verification", UserID: e.Subject, To: to,
		MessageID: e.ID + "@example.com", CreatedAt: e.OccurredAt, UpdatedAt: e.OccurredAt,
	}, e); err != nil {
		t.Fatal(err)
	}
	s.withhold(time.Now())
	s.resume(time.Time{})
	s.consume("a")
	s.publish(e)
	s.wantMails(to, 1)
	s.wantStatus(e, mail.StatusSent, 2)
}

// TestRestoredUnderARunningService is REL-70: a service that was running while its database
// was replaced knows which mails it has sent. It sends none of them again, and says so with
// the event that it published before, so the audit log has one record.
func TestRestoredUnderARunningService(t *testing.T) {
	t.Parallel()
	s := newService(t)
	to := newAddress()
	e := s.requested(to, nil)
	s.publish(e)
	s.wantMails(to, 1)
	s.wantStatus(e, mail.StatusSent, 1)
	sent := func() (id string) {
		t.Helper()
		if err := s.db.QueryRow(t.Context(), `SELECT event_id::text FROM outbox WHERE name = 'email.sent.v1'`).Scan(&id); err != nil {
			t.Fatal(err)
		}
		return id
	}
	before := sent()
	s.exec(`DELETE FROM outbox`)
	s.exec(`UPDATE messages SET status = 'queued', sent_at = NULL, attempts = 0`)
	s.publish(e)
	s.wantStatus(e, mail.StatusSent, 1)
	if after := sent(); after != before {
		t.Errorf("the mail was said to be sent by event %s, want %s again", after, before)
	}
	if n := len(s.smtp.To(to)); n != 1 {
		t.Errorf("%d mails, want 1", n)
	}
}
