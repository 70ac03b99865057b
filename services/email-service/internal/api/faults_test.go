package api_test

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	gosmtp "github.com/emersion/go-smtp"
	"github.com/redis/go-redis/v9"

	"github.com/headgate/headgate/pkg/deadletter"
	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/pkg/testkit"
	"github.com/headgate/headgate/services/email-service/internal/mail"
)

func TestRejectedMail(t *testing.T) {
	t.Parallel()
	s := newService(t)
	bad, good := newAddress(), newAddress()
	s.smtp.script(func(to string) error {
		if to == bad {
			return &gosmtp.SMTPError{Code: 550, EnhancedCode: gosmtp.EnhancedCode{5, 1, 1}, Message: "no such user " + to}
		}
		return nil
	})
	e := s.requested(bad, nil)
	s.publish(e, s.requested(good, nil))
	s.wantMails(good, 1)
	s.wantLetter(e, "permanent", 1)
	letters, err := s.letters.List(t.Context(), deadletter.Filter{}, "", 1)
	if err != nil || strings.Contains(letters[0].Reason, bad) || !strings.Contains(letters[0].Reason, "550") {
		t.Errorf("SEC-65: the reason shows the address: %+v, %v", letters, err)
	}
	s.wantStatus(e, mail.Failed, 1)
	if n := s.outboxed(e, "email.failed.v1"); n != 1 {
		t.Errorf("%d events of a failure", n)
	}
}

func TestBusyServerIsTriedAgain(t *testing.T) {
	t.Parallel()
	s := newService(t)
	to := newAddress()
	left := 2
	s.smtp.script(func(string) error {
		if left--; left >= 0 {
			return &gosmtp.SMTPError{Code: 451, EnhancedCode: gosmtp.EnhancedCode{4, 3, 0}, Message: "later"}
		}
		return nil
	})
	e := s.requested(to, nil)
	s.publish(e)
	s.wantMails(to, 1)
	s.wantSettled()
	s.wantStatus(e, mail.Sent, 3)
}

// TestREL13DeferredMail is REL-13: a deferred mail is not a dead letter and does not
// delay the others. Each deferral is reported as an event.
func TestREL13DeferredMail(t *testing.T) {
	t.Parallel()
	s := newService(t)
	busy, good := newAddress(), newAddress()
	var later atomic.Bool
	s.smtp.script(func(to string) error {
		if to == busy && !later.Load() {
			return &gosmtp.SMTPError{Code: 451, EnhancedCode: gosmtp.EnhancedCode{4, 3, 0}, Message: "later"}
		}
		return nil
	})
	e := s.requested(busy, nil)
	s.publish(e, s.requested(good, nil))
	s.wantMails(good, 1)
	s.wantSettled() // The event is acknowledged: the schedule has the mail.
	testkit.Eventually(t, 10*time.Second, func() error {
		if status, attempts := s.status(e); status != mail.Deferred || attempts < 2 {
			return fmt.Errorf("message is %s after %d attempts", status, attempts)
		}
		return nil
	})
	s.publish(e) // Its event coming again changes nothing.
	s.wantSettled()
	later.Store(true)
	s.wantMails(busy, 1)
	testkit.Eventually(t, 5*time.Second, func() error {
		if status, attempts := s.status(e); status != mail.Sent || s.outboxed(e, "email.deferred.v1") != attempts-1 || s.outboxed(e, "email.sent.v1") != 1 {
			return fmt.Errorf("message is %s after %d attempts, %d events", status, attempts, s.outboxed(e, "email.deferred.v1"))
		}
		return nil
	})
	if letters, err := s.letters.List(t.Context(), deadletter.Filter{}, "", 10); err != nil || len(letters) != 0 {
		t.Errorf("%d dead letters, %v", len(letters), err)
	}
}

// TestServerThatIsAway: an outage longer than three attempts take is no fault of
// the mails, and consumes none.
func TestServerThatIsAway(t *testing.T) {
	t.Parallel()
	s := newService(t)
	var refuse atomic.Bool
	refuse.Store(true)
	s.smtp.onSender(func() error {
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
	if letters, err := s.letters.List(t.Context(), deadletter.Filter{}, "", 10); err != nil || len(letters) != 0 {
		t.Errorf("%d dead letters, %v", len(letters), err)
	}
	refuse.Store(false)
	s.wantMails(to, len(events))
	s.wantSettled()
	for _, e := range events {
		s.wantStatus(e, mail.Sent, 1)
	}
}

// TestSenderThatIsRefused: a fault of the configuration is no fault of the letter.
func TestSenderThatIsRefused(t *testing.T) {
	t.Parallel()
	s := newService(t)
	refused := false
	s.smtp.onSender(func() error {
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
	s.wantSettled()
	s.wantStatus(e, mail.Sent, 1)
	if n := s.outboxed(e, "email.failed.v1"); n != 0 {
		t.Errorf("%d events of a failure", n)
	}
}

// TestConnectionThatBreaks: the server hangs up after the whole letter, once.
func TestConnectionThatBreaks(t *testing.T) {
	t.Parallel()
	s := newService(t)
	var broken atomic.Bool
	s.smtp.onArrival(func(conn *gosmtp.Conn, _ []string) error {
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
	s.wantSettled()
	s.wantStatus(e, mail.Sent, 2)
}

// TestStopWhileTheServerThinks: who stops waits for the answer and notes it, and
// the next instance finds nothing to do.
func TestStopWhileTheServerThinks(t *testing.T) {
	t.Parallel()
	s := newServiceWithout(t)
	a := s.consume("a")
	arrived, answer := make(chan struct{}), make(chan struct{})
	s.smtp.onArrival(func(*gosmtp.Conn, []string) error {
		arrived <- struct{}{}
		<-answer
		return nil
	})
	to := newAddress()
	e := s.requested(to, nil)
	s.publish(e)
	<-arrived
	if status, _ := s.status(e); status != mail.Sending {
		t.Errorf("message is %s, want sending", status)
	}
	a.Cancel()
	close(answer)
	a.Stop()
	if status, _ := s.status(e); status != mail.Sent {
		t.Errorf("message is %s, want sent", status)
	}
	s.consume("b")
	s.publish(e)
	s.wantSettled()
	s.wantMails(to, 1)
}

// TestExpiredLink: no mail, and both operator and auditor see why; unless it was
// sent in time and only its event comes again.
func TestExpiredLink(t *testing.T) {
	t.Parallel()
	s := newService(t)
	to := newAddress()
	late := s.requested(to, func(p *event.UserVerificationRequested) { p.ExpiresAt = time.Now().Add(-time.Minute) })
	s.publish(late)
	s.wantLetter(late, "permanent", 1)
	s.wantStatus(late, mail.Failed, 0)
	if n := s.outboxed(late, "email.failed.v1"); n != 1 {
		t.Errorf("%d events of a failure", n)
	}

	sent := s.requested(to, nil)
	s.publish(sent)
	s.wantMails(to, 1)
	s.wantSettled()
	again := s.requested(to, func(p *event.UserVerificationRequested) { p.ExpiresAt = time.Now().Add(-time.Minute) })
	again.ID = sent.ID
	s.publish(again)
	s.wantSettled()
	letters, err := s.letters.List(t.Context(), deadletter.Filter{}, "", 10)
	if err != nil || len(letters) != 1 {
		t.Errorf("%d dead letters, %v, want that of the late one alone", len(letters), err)
	}
	s.wantMails(to, 1)
}

// TestSEC65LogsTellNoSecret is SEC-65.
func TestSEC65LogsTellNoSecret(t *testing.T) {
	t.Parallel()
	s := newServiceWithout(t)
	var lines syncBuffer
	s.log = slog.New(slog.NewJSONHandler(&lines, &slog.HandlerOptions{Level: slog.LevelDebug}))
	a := s.consume("a")
	good, bad := newAddress(), newAddress()
	s.smtp.script(func(to string) error {
		if to == bad {
			return &gosmtp.SMTPError{Code: 550, EnhancedCode: gosmtp.EnhancedCode{5, 1, 1}, Message: "no such user " + strings.ToUpper(to)}
		}
		return nil
	})
	e := s.requested(bad, nil)
	s.publish(e, s.requested(good, nil))
	s.wantMails(good, 1)
	s.wantLetter(e, "permanent", 1)
	s.wantSettled()
	a.Stop()
	text := strings.ToLower(lines.String())
	if !strings.Contains(text, e.ID) || !strings.Contains(text, "550") {
		t.Errorf("the log does not tell of the failure:\n%s", text)
	}
	for _, secret := range []string{good, bad, token1, "verify-email"} {
		if strings.Contains(text, secret) {
			t.Errorf("the log shows %s:\n%s", secret, text)
		}
	}
}

// syncBuffer is a buffer for several writers.
type syncBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

func TestWhatNoAttemptWouldMend(t *testing.T) {
	t.Parallel()
	s := newService(t)
	other, err := event.NewSealer(strings.Repeat("another key ", 4))
	if err != nil {
		t.Fatal(err)
	}
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
			s.wantLetter(e, "permanent", 1)
		})
	}
	if n := len(s.smtp.to("a@example.org")); n != 0 {
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
	testkit.Eventually(t, 10*time.Second, func() error {
		letters, err := s.letters.List(t.Context(), deadletter.Filter{}, "", 10)
		if err == nil && len(letters) != 1 {
			err = fmt.Errorf("%d dead letters", len(letters))
		}
		return err
	})
	if err := s.redis.FlushDB(t.Context()).Err(); err != nil {
		t.Fatal(err)
	}
	s.publish(s.requested(second, nil))
	s.wantMails(second, 1)
}
