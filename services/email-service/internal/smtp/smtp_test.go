package smtp_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	gosmtp "github.com/emersion/go-smtp"
	gomail "github.com/wneessen/go-mail"

	"github.com/headgate/headgate/pkg/testkit"
	"github.com/headgate/headgate/services/email-service/internal/mail"
	"github.com/headgate/headgate/services/email-service/internal/smtp"
	"github.com/headgate/headgate/services/email-service/internal/smtptest"
)

func TestParseURL(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]smtp.Server{
		"smtp://127.0.0.1:1025":                           {Host: "127.0.0.1", Port: 1025, Policy: gomail.TLSOpportunistic},
		"smtp://mail.example.com":                         {Host: "mail.example.com", Port: 587, Policy: gomail.TLSMandatory},
		"smtp://u:p%40ss@mail.example.com:25":             {Host: "mail.example.com", Port: 25, Username: "u", Password: "p@ss", Policy: gomail.TLSMandatory},
		"smtps://u:p@mail.example.com":                    {Host: "mail.example.com", Port: 465, Username: "u", Password: "p", Implicit: true, Policy: gomail.TLSMandatory},
		"smtp://mail_pit:1025?starttls=off":               {Host: "mail_pit", Port: 1025, Policy: gomail.NoTLS},
		"smtps://mail.b\u00fccher.example":                {Host: "mail.xn--bcher-kva.example", Port: 465, Implicit: true, Policy: gomail.TLSMandatory},
		"smtp://mailpit:1025?starttls=off":                {Host: "mailpit", Port: 1025, Policy: gomail.NoTLS},
		"smtp://mail.example.com/?starttls=opportunistic": {Host: "mail.example.com", Port: 587, Policy: gomail.TLSOpportunistic},
	} {
		if got, err := smtp.ParseURL(text); err != nil || got != want {
			t.Errorf("ParseURL(%q) = %+v, %v, want %+v", text, got, err, want)
		}
	}
	for _, text := range []string{
		"", "mail.example.com", "http://mail.example.com", "smtp://", "smtp://h:0", "smtp://h:99999", "smtp://h/path", "smtp://h?starttls=maybe", "smtp://h?startls=required", "smtp://h?starttls=required&starttls=off", "smtp://h?starttls=required;x",
		"smtp://u:geheim@mail.example.com?starttls=off", "smtp://u:geheim@mail.example.com?starttls=opportunistic", "smtp://u:geheim@h:port",
	} {
		if _, err := smtp.ParseURL(text); err == nil || strings.Contains(err.Error(), "geheim") {
			t.Errorf("ParseURL(%q) = %v", text, err)
		}
	}
}

// TestPingUsesAnIdleConnection: a server that accepts no more connections than are open
// already is available. If it has closed the idle one, a new one tells.
func TestPingUsesAnIdleConnection(t *testing.T) {
	t.Parallel()
	server := smtptest.New(t)
	server.Limit(1)
	url, err := smtp.ParseURL(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	sender, err := smtp.New(url, "no-reply@example.com", time.Second, 1)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(sender.Close)
	send := func() {
		t.Helper()
		message := mail.Message{Delivery: mail.Delivery{To: "ann@example.org", MessageID: "1@example.com"}, Subject: "Hello", Text: "Hello", HTML: "Hello"}
		if err := sender.Send(t.Context(), message); err != nil {
			t.Errorf("Send() = %v", err)
		}
	}
	ping := func() {
		t.Helper()
		if err := sender.Ping(t.Context()); err != nil {
			t.Errorf("Ping() = %v", err)
		}
	}
	send()
	idle := time.NewTimer(1100 * time.Millisecond) // longer than the timeout
	<-idle.C
	ping()
	send()
	server.Disconnect()
	ping()
	send()
	server.OnMail(func() error {
		return &gosmtp.SMTPError{Code: 530, EnhancedCode: gosmtp.EnhancedCode{5, 7, 0}, Message: "authentication required"}
	})
	if err := sender.Ping(t.Context()); !errors.Is(err, mail.ErrServerUnavailable) {
		t.Errorf("Ping() = %v, want %v", err, mail.ErrServerUnavailable)
	}
	server.OnMail(nil)
	testkit.Eventually(t, func() error { return sender.Ping(t.Context()) })
	if n := len(server.To("ann@example.org")); n != 3 {
		t.Errorf("the server accepted %d mails, want 3", n)
	}
}

// TestGreeting: EHLO has the configured name, or the domain of the sender. Internationalized
// domains are sent in ASCII.
func TestGreeting(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct{ from, helo, wantHelo, wantFrom, wantHeader string }{
		"domain of the sender":   {"no-reply@example.com", "", "example.com", "no-reply@example.com", "<no-reply@example.com>"},
		"configured":             {"no-reply@example.com", "mail.example.net", "mail.example.net", "no-reply@example.com", "<no-reply@example.com>"},
		"address literal":        {"no-reply@example.com", "[192.0.2.1]", "[192.0.2.1]", "no-reply@example.com", "<no-reply@example.com>"},
		"internationalized":      {"B\u00fccher <no-reply@b\u00fccher.example>", "", "xn--bcher-kva.example", "no-reply@xn--bcher-kva.example", "=?utf-8?q?B=C3=BCcher?= <no-reply@xn--bcher-kva.example>"},
		"internationalized EHLO": {"no-reply@example.com", "mail.b\u00fccher.example", "mail.xn--bcher-kva.example", "no-reply@example.com", "<no-reply@example.com>"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := smtptest.New(t)
			url, err := smtp.ParseURL(server.URL)
			if err != nil {
				t.Fatal(err)
			}
			url.Helo = tc.helo
			sender, err := smtp.New(url, tc.from, 5*time.Second, 1)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(sender.Close)
			message := mail.Message{Delivery: mail.Delivery{To: "ann@example.org", MessageID: "1@example.com"}, Subject: "Hello", Text: "Hello", HTML: "Hello"}
			if err := sender.Send(t.Context(), message); err != nil {
				t.Fatal(err)
			}
			got := server.To("ann@example.org")[0]
			if got.Helo != tc.wantHelo || got.From != tc.wantFrom || !strings.Contains(got.Data, "From: "+tc.wantHeader+"\r\n") {
				t.Errorf("got EHLO %s, MAIL FROM %s and %q", got.Helo, got.From, got.Data)
			}
		})
	}
}
