package api_test

import (
	"context"
	"errors"
	"io"
	"mime"
	"mime/multipart"
	"mime/quotedprintable"
	netmail "net/mail"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/services/email-service/internal/mail"
)

// parts returns the header of a mail and its decoded bodies by content type.
func parts(t *testing.T, data string) (netmail.Header, map[string]string) {
	t.Helper()
	m, err := netmail.ReadMessage(strings.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	_, params, err := mime.ParseMediaType(m.Header.Get("Content-Type"))
	if err != nil {
		t.Fatal(err)
	}
	bodies := map[string]string{}
	for r := multipart.NewReader(m.Body, params["boundary"]); ; {
		part, err := r.NextRawPart()
		if errors.Is(err, io.EOF) {
			return m.Header, bodies
		}
		if err != nil {
			t.Fatal(err)
		}
		kind, _, err := mime.ParseMediaType(part.Header.Get("Content-Type"))
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(quotedprintable.NewReader(part))
		if err != nil {
			t.Fatal(err)
		}
		bodies[kind] = string(body)
	}
}

func TestSEC63VerificationMail(t *testing.T) {
	t.Parallel()
	s := newService(t)
	to := newAddress()
	e := s.requested(to, func(p *event.UserVerificationRequested) { p.Name = `<a href="//evil.example">win</a>` })
	s.publish(e)
	header, bodies := parts(t, s.wantMails(to, 1)[0].Data)
	for name, want := range map[string]string{
		"Message-Id": "<" + e.ID + "@example.com>", "Subject": "Confirm your email address", "To": "<" + to + ">",
		"Auto-Submitted": "auto-generated", "X-Entity-Ref-Id": e.ID, "User-Agent": "", "X-Mailer": "", "Bcc": "",
	} {
		if got := header.Get(name); got != want {
			t.Errorf("%s = %q, want %q", name, got, want)
		}
	}
	link := baseURL + "/api/v1/auth/verify-email?token=" + token1
	for _, kind := range []string{"text/plain", "text/html"} {
		if !strings.Contains(bodies[kind], link) {
			t.Errorf("%s has no link:\n%s", kind, bodies[kind])
		}
		if strings.Contains(bodies[kind], "evil") {
			t.Errorf("SEC-63: %s shows text that a stranger chose:\n%s", kind, bodies[kind])
		}
	}
	s.wantAcknowledged()
	s.wantStatus(e, mail.StatusSent, 1)
	if n := s.outboxed(e, "email.sent.v1"); n != 1 {
		t.Errorf("%d email.sent events, want 1", n)
	}
	var dump string
	if err := s.db.QueryRow(t.Context(), `SELECT (SELECT string_agg(m::text, '') FROM messages m) || (SELECT string_agg(payload::text, '') FROM outbox)`).Scan(&dump); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(dump, token1) || strings.Contains(dump, "a href") {
		t.Errorf("the database holds the link or the body: %s", dump)
	}
}

// TestOneMailPerEvent delivers one event many times to two instances.
func TestOneMailPerEvent(t *testing.T) {
	t.Parallel()
	s := newService(t)
	s.consume("b")
	to := newAddress()
	e := s.requested(to, nil)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() { s.publish(e) })
	}
	wg.Wait()
	s.wantMails(to, 1)
	s.wantAcknowledged()
	s.wantMails(to, 1)
	if n := s.outboxed(e, "email.sent.v1"); n != 1 {
		t.Errorf("%d email.sent events, want 1", n)
	}
}

func TestReuseNotice(t *testing.T) {
	t.Parallel()
	s := newService(t)
	to := newAddress()
	ctx := event.WithOrigin(context.Background(), event.Origin{IP: "192.0.2.9", UserAgent: "<script>alert(1)</script>"})
	e := event.New(ctx, time.Now(), uuid.NewString(), event.SessionRefreshReused{SessionID: "s", Email: to, Name: "Ann"})
	e.ID, e.Producer = uuid.Must(uuid.NewV7()).String(), "auth-service"
	s.publish(e)
	_, bodies := parts(t, s.wantMails(to, 1)[0].Data)
	for _, kind := range []string{"text/plain", "text/html"} {
		if !strings.Contains(bodies[kind], "192.0.2.9") || strings.Contains(bodies[kind], "alert") {
			t.Errorf("SEC-63: %s has no address, or shows text that a stranger chose:\n%s", kind, bodies[kind])
		}
	}
}
