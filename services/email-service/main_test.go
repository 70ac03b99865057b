package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/pkg/localserver"
	"github.com/headgate/headgate/pkg/testkit"
	"github.com/headgate/headgate/pkg/token"
	"github.com/headgate/headgate/services/email-service/internal/smtptest"
)

func TestMain(m *testing.M) { testkit.ProgramMain(m, main) }

// TestProgram: the program pauses while the mail server is down, sends the mail when
// it is up, and lists it as sent.
func TestProgram(t *testing.T) {
	t.Parallel()
	issuer, redisURL := testkit.NewIssuer(t), testkit.RedisURL(t)
	port, err := localserver.FreePort(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	mailServer := fmt.Sprintf("127.0.0.1:%d", port)
	p := testkit.StartProgram(t, map[string]string{
		"DATABASE_URL": testkit.DatabaseURL(t), "REDIS_URL": redisURL, "JWKS_URL": issuer.JWKSURL,
		"SMTP_URL": "smtp://" + mailServer, "MAIL_FROM": "Headgate <no-reply@example.com>",
		"PUBLIC_BASE_URL": "https://id.example.com", "EVENT_SEAL_KEY": strings.Repeat("0123456789", 4),
	})
	e := testkit.NewEvent(t.Context(), "ann", event.UserPasswordChanged{Method: "change", Email: "ann@example.com", Name: "Ann"})
	testkit.Publish(t, testkit.OpenRedis(t, redisURL, 5*time.Second), event.Email, e)
	testkit.Eventually(t, 10*time.Second, func() error {
		if !strings.Contains(p.Metrics(), `headgate_consumer_paused{topic="email-events"} 1`) {
			return errors.New("the consumer is not paused")
		}
		return nil
	})

	server := smtptest.NewAt(t, mailServer)
	admin := issuer.Token(token.Identity{Role: token.RoleAdmin})
	testkit.Eventually(t, 20*time.Second, func() error {
		var mails []struct{ EventID, To, Status string }
		status, data := p.Call("GET", "/api/v1/email/messages", "", admin)
		if err := json.Unmarshal(data, &mails); err != nil || status != 200 || len(mails) != 1 || mails[0].EventID != e.ID || mails[0].Status != "sent" {
			return fmt.Errorf("messages = %d %s, %w", status, data, err)
		}
		return nil
	})
	if n := len(server.To("ann@example.com")); n != 1 {
		t.Errorf("the mail server accepted %d mails, want 1", n)
	}
	p.Stop()
}

func TestMissingConfiguration(t *testing.T) {
	t.Parallel()
	testkit.WantMissing(t, "DATABASE_URL", "REDIS_URL", "JWKS_URL", "SMTP_URL", "MAIL_FROM", "PUBLIC_BASE_URL")
}
