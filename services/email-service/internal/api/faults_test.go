package api_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	gosmtp "github.com/emersion/go-smtp"
	"github.com/google/uuid"
	"github.com/redis/go-redis/v9"

	"github.com/headgate/headgate/pkg/deadletter"
	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/pkg/testkit"
	"github.com/headgate/headgate/services/email-service/internal/mail"
)

// TestPermanentlyRejectedMail: a 5xx answer makes a dead letter, whose reason does not
// show the address.
func TestPermanentlyRejectedMail(t *testing.T) {
	t.Parallel()
	s := newService(t)
	bad, good := newAddress(), newAddress()
	s.smtp.OnRcpt(func(to string) error {
		if to == bad {
			return &gosmtp.SMTPError{Code: 550, EnhancedCode: gosmtp.EnhancedCode{5, 1, 1}, Message: "no such user " + to}
		}
		return nil
	})
	e := s.requested(bad, nil)
	s.publish(e, s.requested(good, nil))
	s.wantMails(good, 1)
	s.wantDeadLetter(e, "permanent", 1)
	deadLetters, err := s.deadLetters.List(t.Context(), deadletter.Filter{}, "", 1)
	if err != nil || strings.Contains(deadLetters[0].Reason, bad) || !strings.Contains(deadLetters[0].Reason, "550") {
		t.Errorf("SEC-65: the reason shows the address: %+v, %v", deadLetters, err)
	}
	s.wantStatus(e, mail.StatusFailed, 1)
	if n := s.outboxed(e, "email.failed.v1"); n != 1 {
		t.Errorf("%d email.failed events, want 1", n)
	}
}

// TestDeferredMailIsRetried: a mail that is deferred twice is sent at the third attempt.
func TestDeferredMailIsRetried(t *testing.T) {
	t.Parallel()
	s := newService(t)
	to := newAddress()
	deferrals := 2
	s.smtp.OnRcpt(func(string) error {
		if deferrals--; deferrals >= 0 {
			return &gosmtp.SMTPError{Code: 451, EnhancedCode: gosmtp.EnhancedCode{4, 3, 0}, Message: "later"}
		}
		return nil
	})
	e := s.requested(to, nil)
	s.publish(e)
	s.wantMails(to, 1)
	s.wantAcknowledged()
	s.wantStatus(e, mail.StatusSent, 3)
}

// TestREL13DeferredMail is REL-13: a deferred mail is not a dead letter and does not
// delay the others. Each deferral is reported as an event.
func TestREL13DeferredMail(t *testing.T) {
	t.Parallel()
	s := newService(t)
	busy, good := newAddress(), newAddress()
	var later atomic.Bool
	s.smtp.OnRcpt(func(to string) error {
		if to == busy && !later.Load() {
			return &gosmtp.SMTPError{Code: 451, EnhancedCode: gosmtp.EnhancedCode{4, 3, 0}, Message: "later"}
		}
		return nil
	})
	e := s.requested(busy, nil)
	s.publish(e, s.requested(good, nil))
	s.wantMails(good, 1)
	s.wantAcknowledged() // The event is acknowledged: the next attempt is scheduled.
	testkit.Eventually(t, func() error {
		if status, attempts := s.status(e); status != mail.StatusDeferred || attempts < 2 {
			return fmt.Errorf("message is %s after %d attempts", status, attempts)
		}
		return nil
	})
	s.publish(e) // A second delivery of the event changes nothing.
	s.wantAcknowledged()
	later.Store(true)
	s.wantMails(busy, 1)
	testkit.Eventually(t, func() error {
		if status, attempts := s.status(e); status != mail.StatusSent || s.outboxed(e, "email.deferred.v1") != attempts-1 || s.outboxed(e, "email.sent.v1") != 1 {
			return fmt.Errorf("message is %s after %d attempts, %d events", status, attempts, s.outboxed(e, "email.deferred.v1"))
		}
		return nil
	})
	if deadLetters, err := s.deadLetters.List(t.Context(), deadletter.Filter{}, "", 10); err != nil || len(deadLetters) != 0 {
		t.Errorf("%d dead letters, %v", len(deadLetters), err)
	}
}

// TestMailServerUnavailable: an outage that lasts longer than three attempts consumes
// none of them.
func TestMailServerUnavailable(t *testing.T) {
	t.Parallel()
	s := newService(t)
	var refuse atomic.Bool
	refuse.Store(true)
	s.smtp.OnMail(func() error {
		if refuse.Load() {
			return &gosmtp.SMTPError{Code: 421, EnhancedCode: gosmtp.EnhancedCode{4, 3, 2}, Message: "closing down"}
		}
		return nil
	})
	var events []event.Event
	to := newAddress()
	for range 20 {
		events = append(events, s.requested(to, nil))
	}
	s.publish(events...)
	outage := time.NewTimer(5 * time.Second)
	<-outage.C
	if deadLetters, err := s.deadLetters.List(t.Context(), deadletter.Filter{}, "", 10); err != nil || len(deadLetters) != 0 {
		t.Errorf("%d dead letters, %v", len(deadLetters), err)
	}
	refuse.Store(false)
	s.wantMails(to, len(events))
	s.wantAcknowledged()
	for _, e := range events {
		s.wantStatus(e, mail.StatusSent, 1)
	}
}

// TestRejectedSender: a rejected sender address is a fault of the configuration, so the
// message is not failed.
func TestRejectedSender(t *testing.T) {
	t.Parallel()
	s := newService(t)
	refused := false
	s.smtp.OnMail(func() error {
		if refused {
			return nil
		}
		refused = true
		return &gosmtp.SMTPError{Code: 530, EnhancedCode: gosmtp.EnhancedCode{5, 7, 0}, Message: "authentication required"}
	})
	to := newAddress()
	e := s.requested(to, nil)
	s.publish(e)
	s.wantMails(to, 1)
	s.wantAcknowledged()
	s.wantStatus(e, mail.StatusSent, 1)
	if n := s.outboxed(e, "email.failed.v1"); n != 0 {
		t.Errorf("%d email.failed events, want 0", n)
	}
}

// TestBrokenConnection: the server closes the connection once, after the whole message.
func TestBrokenConnection(t *testing.T) {
	t.Parallel()
	s := newService(t)
	var broken atomic.Bool
	s.smtp.OnData(func(conn *gosmtp.Conn, _ []string) error {
		if broken.CompareAndSwap(false, true) {
			conn.Close()
			return errors.New("hung up")
		}
		return nil
	})
	to := newAddress()
	e := s.requested(to, nil)
	s.publish(e)
	s.wantMails(to, 1)
	s.wantAcknowledged()
	s.wantStatus(e, mail.StatusSent, 2)
}

// TestShutdownDuringSend: a stopping instance waits for the answer of the mail server
// and stores it, so the next instance has nothing to do.
func TestShutdownDuringSend(t *testing.T) {
	t.Parallel()
	s := newServiceWithoutConsumer(t)
	a := s.consume("a")
	arrived, answer := make(chan struct{}), make(chan struct{})
	s.smtp.OnData(func(*gosmtp.Conn, []string) error {
		arrived <- struct{}{}
		<-answer
		return nil
	})
	to := newAddress()
	e := s.requested(to, nil)
	s.publish(e)
	<-arrived
	if status, _ := s.status(e); status != mail.StatusSending {
		t.Errorf("message is %s, want sending", status)
	}
	a.Cancel()
	close(answer)
	a.Stop()
	if status, _ := s.status(e); status != mail.StatusSent {
		t.Errorf("message is %s, want sent", status)
	}
	s.consume("b")
	s.publish(e)
	s.wantAcknowledged()
	s.wantMails(to, 1)
}

// TestExpiredLink: a mail whose link has expired is not sent, and both the dead letter
// and the audit log say why. If the mail was sent in time, a second delivery of its
// event changes nothing.
func TestExpiredLink(t *testing.T) {
	t.Parallel()
	s := newService(t)
	to := newAddress()
	late := s.requested(to, func(p *event.UserVerificationRequested) { p.ExpiresAt = time.Now().Add(-time.Minute) })
	s.publish(late)
	s.wantDeadLetter(late, "permanent", 1)
	s.wantStatus(late, mail.StatusFailed, 0)
	if n := s.outboxed(late, "email.failed.v1"); n != 1 {
		t.Errorf("%d email.failed events, want 1", n)
	}

	sent := s.requested(to, nil)
	s.publish(sent)
	s.wantMails(to, 1)
	s.wantAcknowledged()
	again := s.requested(to, func(p *event.UserVerificationRequested) { p.ExpiresAt = time.Now().Add(-time.Minute) })
	again.ID = sent.ID
	s.publish(again)
	s.wantAcknowledged()
	deadLetters, err := s.deadLetters.List(t.Context(), deadletter.Filter{}, "", 10)
	if err != nil || len(deadLetters) != 1 {
		t.Errorf("%d dead letters, %v, want only that of the expired one", len(deadLetters), err)
	}
	s.wantMails(to, 1)
}

// TestSEC65NoSecretsInLogs is SEC-65.
func TestSEC65NoSecretsInLogs(t *testing.T) {
	t.Parallel()
	s := newServiceWithoutConsumer(t)
	var lines testkit.Buffer
	s.log = slog.New(slog.NewJSONHandler(&lines, &slog.HandlerOptions{Level: slog.LevelDebug}))
	a := s.consume("a")
	good, bad := newAddress(), newAddress()
	s.smtp.OnRcpt(func(to string) error {
		if to == bad {
			return &gosmtp.SMTPError{Code: 550, EnhancedCode: gosmtp.EnhancedCode{5, 1, 1}, Message: "no such user " + strings.ToUpper(to)}
		}
		return nil
	})
	e := s.requested(bad, nil)
	s.publish(e, s.requested(good, nil))
	s.wantMails(good, 1)
	s.wantDeadLetter(e, "permanent", 1)
	s.wantAcknowledged()
	a.Stop()
	text := strings.ToLower(lines.String())
	if !strings.Contains(text, e.ID) || !strings.Contains(text, "550") {
		t.Errorf("the log does not report the failure:\n%s", text)
	}
	for _, secret := range []string{good, bad, token1, "verify-email"} {
		if strings.Contains(text, secret) {
			t.Errorf("the log shows %s:\n%s", secret, text)
		}
	}
}

// TestPermanentErrors: an event that no retry can fix becomes a dead letter after one
// attempt.
func TestPermanentErrors(t *testing.T) {
	t.Parallel()
	s := newService(t)
	other := testkit.Sealer(t, strings.Repeat("another key ", 4))
	for name, change := range map[string]func(*event.UserVerificationRequested){
		"sealed with another key": func(p *event.UserVerificationRequested) { p.Token = other.Seal("x", "") },
		"sealed for another account": func(p *event.UserVerificationRequested) {
			p.Token = s.sealer.Seal("x", event.LinkContext(event.UserVerificationRequested{}, "other"))
		},
		"SEC-62 header injection": func(p *event.UserVerificationRequested) { p.Email = "a@example.org\r\nBcc: b@example.org" },
		"several recipients":      func(p *event.UserVerificationRequested) { p.Email = "a@example.org, b@example.org" },
	} {
		t.Run(name, func(t *testing.T) {
			e := s.requested("a@example.org", change)
			s.publish(e)
			s.wantDeadLetter(e, "permanent", 1)
		})
	}
	if n := len(s.smtp.To("a@example.org")); n != 0 {
		t.Errorf("%d mails", n)
	}
}

// TestMalformedEntryAndFlush: the consumer survives an entry that is not a message,
// and the loss of its stream and group.
func TestMalformedEntryAndFlush(t *testing.T) {
	t.Parallel()
	s := newService(t)
	if err := s.redis.XAdd(t.Context(), &redis.XAddArgs{Stream: string(event.Email), Values: []string{"junk", "1"}}).Err(); err != nil {
		t.Fatal(err)
	}
	first, second := newAddress(), newAddress()
	s.publish(s.requested(first, nil))
	s.wantMails(first, 1)
	testkit.Eventually(t, func() error {
		deadLetters, err := s.deadLetters.List(t.Context(), deadletter.Filter{}, "", 10)
		if err == nil && len(deadLetters) != 1 {
			err = fmt.Errorf("%d dead letters", len(deadLetters))
		}
		return err
	})
	if err := s.redis.FlushDB(t.Context()).Err(); err != nil {
		t.Fatal(err)
	}
	s.publish(s.requested(second, nil))
	s.wantMails(second, 1)
}

// TestREL87LockedDeliveries is REL-87: locked rows of sixteen mails do not delay another one.
func TestREL87LockedDeliveries(t *testing.T) {
	t.Parallel()
	s := newServiceWithoutConsumer(t)
	events := make([]event.Event, 16)
	to, fresh := newAddress(), newAddress()
	for i := range events {
		e := s.requested(to, nil)
		if _, err := s.store().Queue(t.Context(), mail.Delivery{
			ID: uuid.Must(uuid.NewV7()).String(), EventID: e.ID, Template: "verification", UserID: e.Subject, To: to,
			MessageID: e.ID + "@example.com", CreatedAt: time.Now(), UpdatedAt: time.Now(),
		}, e); err != nil {
			t.Fatal(err)
		}
		events[i] = e
	}
	locked, err := s.db.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer locked.Rollback(context.WithoutCancel(t.Context())) //nolint:errcheck // It is rolled back already unless the test fails.
	if _, err := locked.Exec(t.Context(), `SELECT FROM messages FOR UPDATE`); err != nil {
		t.Fatal(err)
	}
	s.consume("a")
	s.publish(events...)
	s.publish(s.requested(fresh, nil))
	testkit.Eventually(t, func() error {
		if n := len(s.smtp.To(fresh)); n != 1 {
			return fmt.Errorf("%d mails, want 1", n)
		}
		return nil
	})
	if err := locked.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.wantMails(to, len(events))
	s.wantAcknowledged()
	for _, e := range events {
		s.wantStatus(e, mail.StatusSent, 1)
	}
}
