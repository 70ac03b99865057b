package mail_test

import (
	"context"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/services/email-service/internal/mail"
)

var update = flag.Bool("update", false, "write the golden files")

// page is a Store of nothing and a Sender that keeps the last letter: what a
// mail says needs neither a database nor a server. Both have tests of their own.
type page struct{ letter mail.Letter }

func (p *page) Queue(_ context.Context, m mail.Message) (mail.Message, error) { return m, nil }

func (p *page) Send(ctx context.Context, _ string, send func(context.Context) error, _ func(mail.Message) event.Event) error {
	return send(ctx)
}

func (p *page) Fail(context.Context, string, string, event.Event) error { return nil }

func (p *page) Defer(context.Context, string, string, time.Time, event.Event, event.Event) error {
	return nil
}

func (p *page) Release(context.Context, string, string) error { return nil }

func (p *page) Erase(context.Context, string, time.Time) error { return nil }

type pen struct{ *page }

func (p pen) Send(_ context.Context, letter mail.Letter) error {
	p.letter = letter
	return nil
}

const subject = "01926f39-0000-7000-8000-000000000001"

var noon = time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)

func newMailer(t *testing.T) (*mail.Mailer, *page, *event.Sealer) {
	t.Helper()
	sealer, err := event.NewSealer(strings.Repeat("0123456789", 4))
	if err != nil {
		t.Fatal(err)
	}
	p := &page{}
	mailer, err := mail.NewMailer(mail.Config{
		Store: p, Sender: pen{p}, Sealer: sealer, BaseURL: "https://id.example.com/", From: "Headgate <no-reply@example.com>",
		Concurrency: 1, Now: func() time.Time { return noon },
	})
	if err != nil {
		t.Fatal(err)
	}
	return mailer, p, sealer
}

func told(p event.Payload) event.Event {
	ctx := event.WithOrigin(context.Background(), event.Origin{IP: "192.0.2.9", UserAgent: "open https://evil.example"})
	e := event.New(ctx, noon, subject, p)
	e.ID, e.Producer = "01926f3a-7c2e-7b3a-9d55-0f5e6a1b2c3d", "auth-service"
	return e
}

// TestHowMailsRead compares with testdata; -update writes it.
func TestHowMailsRead(t *testing.T) {
	t.Parallel()
	mailer, p, sealer := newMailer(t)
	const stranger = "Win at https://evil.example"
	linkOf := func(kind event.Payload) event.Link {
		return event.Link{
			Email: "ann@example.org", Name: stranger, ExpiresAt: noon.Add(time.Hour),
			Token: sealer.Seal("a-token&b=<c>", event.LinkContext(kind, subject)),
		}
	}
	for name, write := range map[string]func() error{
		"verification": func() error {
			return mailer.Mail(t.Context(), told(event.UserVerificationRequested(linkOf(event.UserVerificationRequested{}))))
		},
		"reset_password": func() error {
			return mailer.Mail(t.Context(), told(event.UserResetLinkIssued(linkOf(event.UserResetLinkIssued{}))))
		},
		"email_change": func() error {
			return mailer.Mail(t.Context(), told(event.UserEmailChangeLinkIssued(linkOf(event.UserEmailChangeLinkIssued{}))))
		},
		"email_changed": func() error {
			return mailer.Mail(t.Context(), told(event.UserEmailRevertLinkIssued(linkOf(event.UserEmailRevertLinkIssued{}))))
		},
		"password_changed": func() error {
			return mailer.Mail(t.Context(), told(event.UserPasswordChanged{Method: "reset", Email: "ann@example.org", Name: stranger}))
		},
		"mfa_enrolled": func() error {
			return mailer.Mail(t.Context(), told(event.MFAEnrolled{FactorID: "f", Kind: "totp", Email: "ann@example.org", Name: stranger}))
		},
		"mfa_removed": func() error {
			return mailer.Mail(t.Context(), told(event.MFARemoved{FactorID: "f", Kind: "totp", Email: "ann@example.org", Name: stranger}))
		},
		"signup_repeated": func() error {
			return mailer.Mail(t.Context(), told(event.UserSignUpRepeated{Email: "ann@example.org", Name: stranger}))
		},
		"session_ended": func() error {
			return mailer.Mail(t.Context(), told(event.SessionRefreshReused{SessionID: "s", Email: "ann@example.org", Name: stranger}))
		},
	} {
		if err := write(); err != nil {
			t.Fatal(err)
		}
		if p.letter.Template != name || !p.letter.Date.Equal(noon) || strings.Contains(p.letter.HTML+p.letter.Text, "evil") {
			t.Errorf("letter = %+v", p.letter)
		}
		golden(t, name+".html", p.letter.HTML)
		golden(t, name+".txt", p.letter.Text)
	}
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	file := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatalf("%v: run go test ./internal/mail -update", err)
	}
	if got != string(want) {
		t.Errorf("%s differs: run go test ./internal/mail -update and look at the change\n%s", name, got)
	}
}

// TestRecipients is SEC-62: one address and nothing that could become more.
func TestRecipients(t *testing.T) {
	t.Parallel()
	mailer, _, _ := newMailer(t)
	for to, good := range map[string]bool{
		"ann@example.org": true, "ann+tag@sub.example.org": true, "jürgen@example.org": true, "o'neil@example.org": true,
		"": false, "ann": false, "@example.org": false, "ann@": false,
		"Ann <ann@example.org>": false, "<ann@example.org>": false, "a@example.org, b@example.org": false, "ann@example.org (c)": false,
		"ann@example.org\r\nBcc: b@example.org": false, "ann@example.org\nx": false, "\"a\r\nb\"@example.org": false,
		"\"a b\"@example.org": false, "a\x00b@example.org": false, "a\u2028b@example.org": false, "a\u0085b@example.org": false,
		"=?utf-8?q?a=0d=0aBcc:b?= <a@example.org>": false,
	} {
		err := mailer.Mail(t.Context(), told(event.SessionRefreshReused{SessionID: "s", Email: to}))
		if good && err != nil || !good && !errors.Is(err, event.ErrMalformed) {
			t.Errorf("mail to %q: %v", to, err)
		}
	}
}

func TestMask(t *testing.T) {
	t.Parallel()
	for address, want := range map[string]string{
		"bob@example.com": "b***@example.com", "b@example.com": "b***@example.com", "jürgen@example.org": "j***@example.org",
		"": "***", "bob": "***", "@example.com": "***", "ürsula@example.org": "ü***@example.org",
	} {
		if got := mail.Mask(address); got != want {
			t.Errorf("Mask(%q) = %q, want %q", address, got, want)
		}
	}
}
