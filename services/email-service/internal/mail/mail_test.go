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
	enrolled := func(kind string) event.Event {
		return told(event.MFAEnrolled{FactorID: "f", Kind: kind, Email: "ann@example.org", Name: stranger})
	}
	removed := func(kind string) event.Event {
		return told(event.MFARemoved{FactorID: "f", Kind: kind, Email: "ann@example.org", Name: stranger})
	}
	for name, tc := range map[string]struct {
		told              event.Event
		template, subject string
	}{
		"verification":   {told(event.UserVerificationRequested(linkOf(event.UserVerificationRequested{}))), "verification", "Confirm your email address"},
		"reset_password": {told(event.UserResetLinkIssued(linkOf(event.UserResetLinkIssued{}))), "reset_password", "Choose a new password"},
		"email_change":   {told(event.UserEmailChangeLinkIssued(linkOf(event.UserEmailChangeLinkIssued{}))), "email_change", "Confirm your new email address"},
		"email_changed":  {told(event.UserEmailRevertLinkIssued(linkOf(event.UserEmailRevertLinkIssued{}))), "email_changed", "Your email address was changed"},
		"password_changed": {
			told(event.UserPasswordChanged{Method: "change", Email: "ann@example.org", Name: stranger}), "password_changed", "Your password was changed",
		},
		"password_reset": {
			told(event.UserPasswordChanged{Method: "reset", Email: "ann@example.org", Name: stranger}), "password_changed", "Your password was changed",
		},
		"mfa_enrolled":     {byOwner(enrolled("totp")), "mfa_enrolled", "An authenticator app was added to your account"},
		"passkey_enrolled": {byOwner(enrolled("passkey")), "mfa_enrolled", "A passkey was added to your account"},
		"other_enrolled":   {byOwner(enrolled(stranger)), "mfa_enrolled", "A way to sign in was added to your account"},
		"mfa_removed":      {byOwner(removed("totp")), "mfa_removed", "An authenticator app was removed from your account"},
		"passkey_removed":  {byOwner(removed("passkey")), "mfa_removed", "A passkey was removed from your account"},
		"mfa_reset":        {byAdmin(removed("totp")), "mfa_removed", "An authenticator app was removed from your account"},
		"passkey_reset":    {byAdmin(removed("passkey")), "mfa_removed", "A passkey was removed from your account"},
		"signup_repeated":  {told(event.UserSignUpRepeated{Email: "ann@example.org", Name: stranger}), "signup_repeated", "You already have an account"},
		"session_ended": {
			told(event.SessionRefreshReused{SessionID: "s", Email: "ann@example.org", Name: stranger}), "session_ended", "We ended a session of yours",
		},
	} {
		if err := mailer.Mail(t.Context(), tc.told); err != nil {
			t.Fatal(err)
		}
		got := p.letter
		if got.Template != tc.template || got.Subject != tc.subject || !got.Date.Equal(noon) || strings.Contains(got.HTML+got.Text+got.Subject, "evil") {
			t.Errorf("%s: letter = %+v", name, got)
		}
		if !strings.HasPrefix(got.Text, "Headgate\n\n"+tc.subject+"\n\n") || !strings.Contains(got.HTML, ">Headgate</td>") {
			t.Errorf("%s: no name of the product:\n%s", name, got.Text)
		}
		for line := range strings.SplitSeq(got.Text, "\n") {
			if len(line) > 76 && strings.Contains(line, " ") || strings.TrimSpace(line) != line {
				t.Errorf("%s: line %q", name, line)
			}
		}
		golden(t, name+".html", got.HTML)
		golden(t, name+".txt", got.Text)
	}
}

func byOwner(e event.Event) event.Event {
	e.Actor = event.Actor{Type: "user", ID: subject}
	return e
}

func byAdmin(e event.Event) event.Event {
	e.Actor = event.Actor{Type: "admin", ID: "01926f39-0000-7000-8000-0000000000ad"}
	return e
}

// TestAdministratorIsNotTheOwner: where an administrator sits is not where the
// owner's request came from.
func TestAdministratorIsNotTheOwner(t *testing.T) {
	t.Parallel()
	mailer, p, _ := newMailer(t)
	e := told(event.MFARemoved{FactorID: "f", Kind: "totp", Email: "ann@example.org"})
	for name, tc := range map[string]struct {
		told  event.Event
		admin bool
	}{"owner": {byOwner(e), false}, "administrator": {byAdmin(e), true}} {
		if err := mailer.Mail(t.Context(), tc.told); err != nil {
			t.Fatal(err)
		}
		for _, body := range []string{p.letter.Text, p.letter.HTML} {
			if strings.Contains(body, "192.0.2.9") == tc.admin || strings.Contains(body, "administrator") != tc.admin {
				t.Errorf("%s removed it:\n%s", name, body)
			}
		}
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

// TestSEC62Recipients is SEC-62: one address and nothing that could become more.
func TestSEC62Recipients(t *testing.T) {
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
