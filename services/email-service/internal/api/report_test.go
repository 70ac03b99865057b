package api_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	gosmtp "github.com/emersion/go-smtp"

	"github.com/headgate/headgate/pkg/event"
	process "github.com/headgate/headgate/pkg/service"
	"github.com/headgate/headgate/pkg/testkit"
	"github.com/headgate/headgate/services/email-service/internal/mail"
)

// lines returns the lines of a JSON log with a message.
func lines(t *testing.T, log, message string) []map[string]any {
	t.Helper()
	var found []map[string]any
	for text := range strings.Lines(log) {
		var line map[string]any
		if err := json.Unmarshal([]byte(text), &line); err != nil {
			t.Fatalf("%v in %s", err, text)
		}
		if line["msg"] == message {
			found = append(found, line)
		}
	}
	return found
}

// metric returns the value of a metric with a label, or without one if it has none.
func (s *service) metric(name, label string) float64 {
	s.t.Helper()
	families, err := s.metrics.Gather()
	if err != nil {
		s.t.Fatal(err)
	}
	for _, family := range families {
		for _, m := range family.GetMetric() {
			if family.GetName() == name && (label == "" || m.GetLabel()[0].GetValue() == label) {
				return m.GetCounter().GetValue() + m.GetGauge().GetValue() // One of them is 0.
			}
		}
	}
	s.t.Fatalf("no metric %s of %q", name, label)
	return 0
}

// TestREL72MailServerDefersEveryMail is REL-72: a mail server that answers 451 to
// everybody is one warning and a metric within seconds, and one line when it is over.
// Each mail has a line with the request that led to it.
func TestREL72MailServerDefersEveryMail(t *testing.T) {
	t.Parallel()
	s := newServiceWithoutConsumer(t)
	var log testkit.Buffer
	s.log = process.NewLogger(&log, "email-service", process.Common{LogLevel: "info", LogFormat: "json"})
	s.consume("a")
	s.metrics.MustRegister(s.store().Gauges()...)
	bad := newAddress()
	s.smtp.OnRcpt(func(to string) error {
		if to == bad {
			return &gosmtp.SMTPError{Code: 550, EnhancedCode: gosmtp.EnhancedCode{5, 1, 1}, Message: "no such user"}
		}
		return &gosmtp.SMTPError{Code: 451, EnhancedCode: gosmtp.EnhancedCode{4, 3, 0}, Message: "later"}
	})
	refused := s.requested(bad, nil)
	s.publish(refused)
	s.wantDeadLetter(refused, "permanent", 1)
	to := newAddress()
	var events []event.Event
	for range 4 {
		events = append(events, s.requested(to, nil))
	}
	s.publish(events...)
	testkit.Eventually(t, func() error {
		if n := len(lines(t, log.String(), "mail server defers every mail")); n != 1 {
			return fmt.Errorf("%d warnings, want 1", n)
		}
		if n := len(lines(t, log.String(), "mail deferred")); n < len(events) { // Three make the warning.
			return fmt.Errorf("%d mails deferred, want %d", n, len(events))
		}
		return nil
	})
	if got := s.metric("headgate_mail_server_deferring", ""); got != 1 {
		t.Errorf("headgate_mail_server_deferring = %v, want 1", got)
	}
	s.smtp.OnRcpt(nil)
	s.wantMails(to, len(events))
	for _, e := range events {
		testkit.Eventually(t, func() error {
			if status, _ := s.status(e); status != mail.StatusSent {
				return fmt.Errorf("the mail is %s", status)
			}
			return nil
		})
	}
	text := log.String()
	for message, want := range map[string]int{"mail server defers every mail": 1, "mail server accepts mails again": 1, "mail sent": len(events), "mail failed": 1} {
		found := lines(t, text, message)
		if len(found) != want {
			t.Errorf("%d lines %q, want %d", len(found), message, want)
		}
		for _, line := range found {
			if line["request_id"] != "request-1" {
				t.Errorf("%q has the request id %v", message, line["request_id"])
			}
		}
	}
	deferred := lines(t, text, "mail deferred")
	if len(deferred) < len(events) || deferred[0]["request_id"] != "request-1" {
		t.Errorf("deferred = %v", deferred)
	}
	for name, want := range map[string]float64{mail.StatusSent: float64(len(events)), mail.StatusFailed: 1, mail.StatusDeferred: float64(len(deferred))} {
		if got := s.metric("headgate_mails_total", name); got != want {
			t.Errorf("headgate_mails_total of %s = %v, want %v", name, got, want)
		}
	}
	if got := s.metric("headgate_mail_server_deferring", ""); got != 0 {
		t.Errorf("headgate_mail_server_deferring = %v, want 0", got)
	}
	s.withhold(time.Now())
	if s.metric("headgate_mails", "withheld") != 0 || s.metric("headgate_mail_decision_pending", "") != 1 {
		t.Errorf("%v mails are withheld, decisions pending: %v", s.metric("headgate_mails", "withheld"), s.metric("headgate_mail_decision_pending", ""))
	}
}
