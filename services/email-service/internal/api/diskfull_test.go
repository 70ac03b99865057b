package api_test

import (
	"errors"
	"sync/atomic"
	"testing"
	"time"

	gosmtp "github.com/emersion/go-smtp"

	"github.com/headgate/headgate/pkg/deadletter"
	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/pkg/testkit"
	"github.com/headgate/headgate/services/email-service/internal/mail"
)

// exec runs a statement in the database of the service.
func (s *service) exec(statement string) {
	s.t.Helper()
	if _, err := s.db.Exec(s.t.Context(), statement); err != nil {
		s.t.Fatal(err)
	}
}

// diskFull makes Postgres answer as on a full disk when the trigger fires.
func (s *service) diskFull(trigger string) {
	s.t.Helper()
	s.exec(`CREATE FUNCTION disk_full() RETURNS trigger LANGUAGE plpgsql AS $$
		BEGIN RAISE EXCEPTION 'No space left on device' USING ERRCODE = 'disk_full'; END $$`)
	s.exec(trigger)
}

// wantPostponedAttempt waits until an attempt has failed for a reason that is not the event's.
func (s *service) wantPostponedAttempt() {
	s.t.Helper()
	testkit.Eventually(s.t, func() error {
		families, err := s.metrics.Gather()
		if err != nil {
			return err
		}
		for _, family := range families {
			for _, m := range family.GetMetric() {
				for _, label := range m.GetLabel() {
					if family.GetName() == "headgate_events_total" && (label.GetValue() == "paused" || label.GetValue() == "delayed") {
						return nil
					}
				}
			}
		}
		return errors.New("no attempt is paused or delayed")
	})
}

// TestREL70DatabaseConnectionBreaks is REL-70 for a connection to Postgres that breaks
// while the mail server receives the mail.
func TestREL70DatabaseConnectionBreaks(t *testing.T) {
	t.Parallel()
	s := newService(t)
	var broken atomic.Bool
	s.smtp.OnData(func(*gosmtp.Conn, []string) error {
		if broken.CompareAndSwap(false, true) {
			s.exec(`SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND state = 'idle in transaction'`)
		}
		return nil
	})
	to := newAddress()
	e := s.requested(to, nil)
	s.publish(e)
	s.wantMails(to, 1)
	s.wantAcknowledged()
	s.wantStatus(e, mail.StatusSent, 1)
	s.wantMails(to, 1)
	if n := s.outboxed(e, "email.sent.v1"); n != 1 {
		t.Errorf("%d email.sent events, want 1", n)
	}
}

// TestREL70DiskFull is REL-70: while email's disk is full, no mail is sent twice, and no
// mail is sent to try whether the disk is still full. Whatever fails before the mail
// server is asked sends no mail. A COMMIT that fails afterwards is repeated, not the mail.
func TestREL70DiskFull(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		trigger string
		sent    int // mails while the disk is full
	}{
		"INSERT of the event": {`CREATE TRIGGER disk_full BEFORE INSERT ON outbox FOR EACH ROW EXECUTE FUNCTION disk_full()`, 0},
		"UPDATE of the state": {`CREATE TRIGGER disk_full BEFORE UPDATE ON messages FOR EACH ROW WHEN (NEW.status = 'sent') EXECUTE FUNCTION disk_full()`, 0},
		"COMMIT": {`CREATE CONSTRAINT TRIGGER disk_full AFTER UPDATE ON messages DEFERRABLE INITIALLY DEFERRED
			FOR EACH ROW WHEN (NEW.status = 'sent') EXECUTE FUNCTION disk_full()`, 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newService(t)
			s.diskFull(tc.trigger)
			table := "messages"
			if name == "INSERT of the event" {
				table = "outbox"
			}
			first, later := newAddress(), newAddress()
			early := s.requested(first, nil)
			s.publish(early)
			s.wantMails(first, tc.sent)
			s.wantPostponedAttempt() // Until the COMMIT has failed, another mail may be sent.
			late := s.requested(later, nil)
			s.publish(late)
			full := time.NewTimer(6 * time.Second) // several probes
			<-full.C
			s.wantMails(first, tc.sent)
			s.wantMails(later, 0)
			s.exec(`DROP TRIGGER disk_full ON ` + table)
			s.wantMails(later, 1)
			s.wantMails(first, 1)
			s.wantAcknowledged()
			for _, e := range []event.Event{early, late} {
				s.wantStatus(e, mail.StatusSent, 1)
				if n := s.outboxed(e, "email.sent.v1"); n != 1 {
					t.Errorf("%d email.sent events, want 1", n)
				}
			}
			if deadLetters, err := s.deadLetters.List(t.Context(), deadletter.Filter{}, "", 10); err != nil || len(deadLetters) != 0 {
				t.Errorf("%d dead letters, %v", len(deadLetters), err)
			}
		})
	}
}
