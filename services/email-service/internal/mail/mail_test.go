package mail_test

import (
	"context"
	"errors"
	"flag"
	"html"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/pkg/testkit"
	"github.com/headgate/headgate/services/email-service/internal/mail"
)

var update = flag.Bool("update", false, "write the golden files")

// memory is a Store that stores nothing, and keeps the last message that its sender was
// given: a test of the text needs neither a database nor a mail server. Store and Sender
// have their own tests.
type memory struct{ last mail.Message }

func (m *memory) Queue(_ context.Context, d mail.Delivery, _ event.Event) (mail.Delivery, error) {
	return d, nil
}

func (m *memory) Send(ctx context.Context, _ string, send func(context.Context) error, _ func(mail.Delivery) event.Event) error {
	return send(ctx)
}

func (m *memory) Fail(context.Context, string, string, event.Event) error { return nil }

func (m *memory) Defer(context.Context, string, mail.Deferral, event.Event) error { return nil }

func (m *memory) Release(context.Context, string, string) error { return nil }

func (m *memory) Erase(context.Context, string, time.Time) error { return nil }

type memorySender struct{ *memory }

func (s memorySender) Send(_ context.Context, message mail.Message) error {
	s.last = message
	return nil
}

const subject = "01926f39-0000-7000-8000-000000000001"

var noon = time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)

func newMailer(t *testing.T) (*mail.Mailer, *memory, *event.Sealer) {
	t.Helper()
	return newMailerOf(t, "Headgate")
}

func newMailerOf(t *testing.T, brand string) (*mail.Mailer, *memory, *event.Sealer) {
	t.Helper()
	sealer := testkit.Sealer(t, strings.Repeat("0123456789", 4))
	m := &memory{}
	mailer, err := mail.NewMailer(mail.Config{
		Store: m, Sender: memorySender{m}, Sealer: sealer, Brand: brand, BaseURL: "https://id.example.com/", From: "Headgate <no-reply@example.com>",
		Concurrency: 1, Now: func() time.Time { return noon }, Log: testkit.Log(t), Metrics: prometheus.NewRegistry(),
	})
	if err != nil {
		t.Fatal(err)
	}
	return mailer, m, sealer
}

func newEvent(p event.Payload) event.Event {
	ctx := event.WithOrigin(context.Background(), event.Origin{IP: "192.0.2.9", UserAgent: "open https://evil.example"})
	e := event.New(ctx, noon, subject, p)
	e.ID, e.Producer = "01926f3a-7c2e-7b3a-9d55-0f5e6a1b2c3d", "auth-service"
	return e
}

// TestTexts compares each mail with its golden file in testdata; -update writes them.
func TestTexts(t *testing.T) {
	t.Parallel()
	mailer, m, sealer := newMailer(t)
	const brand = `Acme "Ü:+"`
	branded, other, _ := newMailerOf(t, brand)
	const stranger = "Win at https://evil.example"
	linkOf := func(kind event.Payload) event.Link {
		return event.Link{
			Email: "ann@example.org", Name: stranger, ExpiresAt: noon.Add(time.Hour),
			Token: sealer.Seal("a-token&b=<c>", event.LinkContext(kind, subject)),
		}
	}
	enrolled := func(kind string) event.Event {
		return newEvent(event.MFAEnrolled{FactorID: "f", Kind: kind, Email: "ann@example.org", Name: stranger})
	}
	removed := func(kind string) event.Event {
		return newEvent(event.MFARemoved{FactorID: "f", Kind: kind, Email: "ann@example.org", Name: stranger})
	}
	for name, tc := range map[string]struct {
		event             event.Event
		template, subject string
	}{
		"verification":   {newEvent(event.UserVerificationRequested(linkOf(event.UserVerificationRequested{}))), "verification", "Confirm your email address"},
		"reset_password": {newEvent(event.UserResetLinkIssued(linkOf(event.UserResetLinkIssued{}))), "reset_password", "Choose a new password"},
		"email_change":   {newEvent(event.UserEmailChangeLinkIssued(linkOf(event.UserEmailChangeLinkIssued{}))), "email_change", "Confirm your new email address"},
		"email_changed":  {newEvent(event.UserEmailRevertLinkIssued(linkOf(event.UserEmailRevertLinkIssued{}))), "email_changed", "Your email address was changed"},
		"export":         {byOwner(newEvent(event.UserExportLinkIssued(linkOf(event.UserExportLinkIssued{})))), "export", "Your data is ready"},
		"password_changed": {
			newEvent(event.UserPasswordChanged{Method: "change", Email: "ann@example.org", Name: stranger}), "password_changed", "Your password was changed",
		},
		"password_reset": {
			newEvent(event.UserPasswordChanged{Method: "reset", Email: "ann@example.org", Name: stranger}), "password_changed", "Your password was changed",
		},
		"password_changed_passkeys_left": {
			newEvent(event.UserPasswordChanged{Method: "change", Email: "ann@example.org", Name: stranger, PasskeysLeft: 2}), "password_changed", "Your password was changed",
		},
		"password_reset_passkeys_removed": {
			newEvent(event.UserPasswordChanged{Method: "reset", Email: "ann@example.org", Name: stranger, PasskeysRemoved: 1}), "password_changed", "Your password was changed",
		},
		"reauth_code":         {newEvent(event.UserReauthCodeIssued(linkOf(event.UserReauthCodeIssued{}))), "reauth_code", "Your confirmation code"},
		"mfa_enrolled":        {byOwner(enrolled("totp")), "mfa_enrolled", "An authenticator app was added to your account"},
		"passkey_enrolled":    {byOwner(enrolled("passkey")), "mfa_enrolled", "A passkey was added to your account"},
		"other_enrolled":      {byOwner(enrolled(stranger)), "mfa_enrolled", "A sign-in method was added to your account"},
		"mfa_removed":         {byOwner(removed("totp")), "mfa_removed", "An authenticator app was removed from your account"},
		"passkey_removed":     {byOwner(removed("passkey")), "mfa_removed", "A passkey was removed from your account"},
		"mfa_reset":           {byAdmin(removed("totp")), "mfa_removed", "An authenticator app was removed from your account"},
		"passkey_reset":       {byAdmin(removed("passkey")), "mfa_removed", "A passkey was removed from your account"},
		"password_removed":    {byOwner(newEvent(event.UserPasswordRemoved{Email: "ann@example.org", Name: stranger})), "password_removed", "Your password was switched off"},
		"recovery_codes_made": {byOwner(newEvent(event.MFARecoveryCodesMade{Email: "ann@example.org", Name: stranger})), "recovery_codes_made", "New recovery codes were created"},
		"recovery_code_used":  {byOwner(newEvent(event.MFARecoveryCodeUsed{Left: 7, Email: "ann@example.org", Name: stranger})), "recovery_code_used", "A recovery code was used"},
		"new_device":          {byOwner(newEvent(event.UserSignedInFromNewDevice{SessionID: "s", Email: "ann@example.org", Name: stranger})), "new_device", "New sign-in to your account"},
		"password_guessed":    {byOwner(newEvent(event.UserGuessed{Method: "password", Failures: 12, Email: "ann@example.org", Name: stranger})), "guessed", "Sign-in after many failed attempts"},
		"code_guessed":        {byOwner(newEvent(event.UserGuessed{Method: "code", Failures: 5, Email: "ann@example.org", Name: stranger})), "guessed", "Someone knows your password"},
		"role_changed":        {byAdmin(newEvent(event.UserRoleChanged{Before: "user", After: "admin", Email: "ann@example.org", Name: stranger})), "role_changed", "The role of your account was changed"},
		"role_unknown":        {byAdmin(newEvent(event.UserRoleChanged{Before: "user", After: stranger, Email: "ann@example.org", Name: stranger})), "role_changed", "The role of your account was changed"},
		"disabled":            {byAdmin(newEvent(event.UserDisabled{Before: "active", After: "disabled", Email: "ann@example.org", Name: stranger})), "disabled", "Your account was disabled"},
		"enabled":             {byAdmin(newEvent(event.UserEnabled{Before: "disabled", After: "active", Email: "ann@example.org", Name: stranger})), "enabled", "Your account was enabled again"},
		"deletion_scheduled":  {byOwner(newEvent(event.UserDeletionScheduled{DeleteAt: noon.AddDate(0, 0, 14), Email: "ann@example.org", Name: stranger})), "deletion_scheduled", "Your account will be deleted"},
		"deletion_cancelled":  {byOwner(newEvent(event.UserDeletionCancelled{Email: "ann@example.org", Name: stranger})), "deletion_cancelled", "Your account was restored"},
		"signup_repeated":     {newEvent(event.UserSignUpRepeated{Email: "ann@example.org", Name: stranger}), "signup_repeated", "You already have an account"},
		"sign_in_limited": {
			newEvent(event.UserSignInLimited{Email: "ann@example.org", Name: stranger}), "sign_in_limited", "Many sign-ins to your account failed",
		},
		"session_ended": {
			newEvent(event.SessionRefreshReused{SessionID: "s", Email: "ann@example.org", Name: stranger}), "session_ended", "We ended one of your sessions",
		},
	} {
		if err := mailer.Mail(t.Context(), tc.event); err != nil {
			t.Fatal(err)
		}
		got := m.last
		if got.Template != tc.template || got.Subject != tc.subject || !got.Date.Equal(noon) || strings.Contains(got.HTML+got.Text+got.Subject, "evil") {
			t.Errorf("%s: message = %+v", name, got)
		}
		if !strings.HasPrefix(got.Text, "Headgate\n\n"+tc.subject+"\n\n") || !strings.Contains(got.HTML, ">Headgate</td>") {
			t.Errorf("%s: the name of the product is missing:\n%s", name, got.Text)
		}
		for line := range strings.SplitSeq(got.Text, "\n") {
			if len(line) > 76 && strings.Contains(line, " ") || strings.TrimSpace(line) != line {
				t.Errorf("%s: line %q", name, line)
			}
		}
		if err := branded.Mail(t.Context(), tc.event); err != nil {
			t.Fatal(err)
		}
		if all := other.last.Subject + other.last.HTML + other.last.Text; strings.Contains(all, "Headgate") || strings.Contains(other.last.HTML, brand) ||
			!strings.Contains(html.UnescapeString(other.last.HTML), ">"+brand+"</td>") || !strings.Contains(other.last.HTML, ">A</td>") || !strings.HasPrefix(other.last.Text, brand+"\n\n") {
			t.Errorf("%s: with another name: %s", name, all)
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

// TestAdministratorIsNotTheOwner: the address of an administrator is not shown to the
// owner as the origin of the request.
func TestAdministratorIsNotTheOwner(t *testing.T) {
	t.Parallel()
	mailer, m, _ := newMailer(t)
	e := newEvent(event.MFARemoved{FactorID: "f", Kind: "totp", Email: "ann@example.org"})
	for name, tc := range map[string]struct {
		event event.Event
		admin bool
	}{"owner": {byOwner(e), false}, "administrator": {byAdmin(e), true}} {
		if err := mailer.Mail(t.Context(), tc.event); err != nil {
			t.Fatal(err)
		}
		for _, body := range []string{m.last.Text, m.last.HTML} {
			if strings.Contains(body, "192.0.2.9") == tc.admin || strings.Contains(body, "administrator") != tc.admin {
				t.Errorf("removed by the %s:\n%s", name, body)
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
		t.Errorf("%s differs: run go test ./internal/mail -update and review the change\n%s", name, got)
	}
}

// TestSEC62Recipients is SEC-62: a recipient is exactly one address.
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
		err := mailer.Mail(t.Context(), newEvent(event.SessionRefreshReused{SessionID: "s", Email: to}))
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
