package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/pkg/localserver"
	"github.com/headgate/headgate/pkg/reconcile"
	"github.com/headgate/headgate/pkg/testkit"
	"github.com/headgate/headgate/pkg/token"
	"github.com/headgate/headgate/services/email-service/internal/smtptest"
)

func TestMain(m *testing.M) { testkit.ProgramMain(m, main) }

// postWatermarks posts the watermarks of a producer that has published nothing, as the relay
// of auth-service does, until the test ends. A new database is not checked without them.
func postWatermarks(t *testing.T, client redis.UniversalClient) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var posting sync.WaitGroup
	t.Cleanup(posting.Wait)
	t.Cleanup(cancel)
	posting.Go(func() {
		tick := time.NewTicker(100 * time.Millisecond)
		defer tick.Stop()
		for ctx.Err() == nil {
			watermark, err := json.Marshal(reconcile.Watermark{Producer: "auth-service", Topic: event.Email, At: time.Now()})
			if err == nil {
				err = client.Set(ctx, "watermark:published:{email-events}:auth-service", watermark, 0).Err()
			}
			if err != nil && ctx.Err() == nil {
				t.Error(err)
			}
			select {
			case <-ctx.Done():
			case <-tick.C:
			}
		}
	})
}

// TestProgram: the program pauses while the mail server is down, sends the mail when
// it is up, and lists it as sent.
func TestProgram(t *testing.T) {
	t.Parallel()
	testkit.ThroughPoolers(t, testProgram)
}

func testProgram(t *testing.T, databaseURL string) {
	t.Helper()
	issuer, redisURL := testkit.NewIssuer(t), testkit.RedisURL(t)
	port, err := localserver.FreePort(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	mailServer := fmt.Sprintf("127.0.0.1:%d", port)
	p := testkit.StartProgram(t, map[string]string{
		"DATABASE_URL": databaseURL, "REDIS_URL": redisURL, "JWKS_URL": issuer.JWKSURL,
		"SMTP_URL": "smtp://" + mailServer, "MAIL_FROM": "Headgate <no-reply@example.com>",
		"PUBLIC_BASE_URL": "https://id.example.com", "EVENT_SEAL_KEY": strings.Repeat("0123456789", 4),
	})
	client := testkit.OpenRedis(t, redisURL, 5*time.Second)
	postWatermarks(t, client)
	e := testkit.NewEvent(t.Context(), "ann", event.UserPasswordChanged{Method: "change", Email: "ann@example.com", Name: "Ann"})
	testkit.Publish(t, client, event.Email, e)
	testkit.Eventually(t, func() error {
		if !strings.Contains(p.Metrics(), `headgate_consumer_paused{topic="email-events"} 1`) {
			return errors.New("the consumer is not paused")
		}
		return nil
	})

	server := smtptest.NewAt(t, mailServer)
	admin := issuer.Token(token.Identity{Role: token.RoleAdmin})
	testkit.Eventually(t, func() error {
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

// SEC-127: while EVENT_SEAL_KEY lists a previous key, links that were sealed with it are
// mailed, and so are those that are sealed with the first.
func TestSEC127LinksOfAPreviousKey(t *testing.T) {
	t.Parallel()
	issuer, redisURL, server := testkit.NewIssuer(t), testkit.RedisURL(t), smtptest.New(t)
	previous := strings.Repeat("sealing0123456789-", 3)
	listed := "b:" + strings.ToUpper(previous) + ",default:" + previous
	p := testkit.StartProgram(t, map[string]string{
		"DATABASE_URL": testkit.DatabaseURL(t), "REDIS_URL": redisURL, "JWKS_URL": issuer.JWKSURL,
		"SMTP_URL": server.URL, "MAIL_FROM": "Headgate <no-reply@example.com>",
		"PUBLIC_BASE_URL": "https://id.example.com", "EVENT_SEAL_KEY": listed,
	})
	client := testkit.OpenRedis(t, redisURL, 5*time.Second)
	postWatermarks(t, client)
	for address, key := range map[string]string{"ann@example.com": previous, "bob@example.com": listed} {
		secret := "secret-of-" + address[:3]
		link := event.UserResetLinkIssued{Email: address, Name: "Ann", ExpiresAt: time.Now().Add(time.Hour)}
		link.Token = testkit.Sealer(t, key).Seal(secret, event.LinkContext(event.UserResetLinkIssued{}, address[:3]))
		testkit.Publish(t, client, event.Email, testkit.NewEvent(t.Context(), address[:3], link))
		testkit.Eventually(t, func() error {
			mails := server.To(address)
			if len(mails) != 1 || !strings.Contains(fmt.Sprint(mails[0]), secret) {
				return fmt.Errorf("mails to %s = %v, want one with its link", address, mails)
			}
			return nil
		})
	}
	p.Stop()
}

// TestResumeBeforeTheCheck is REL-71: nobody can decide about withheld mails before it is
// known which those are.
func TestResumeBeforeTheCheck(t *testing.T) {
	t.Parallel()
	environment := map[string]string{
		"DATABASE_URL": testkit.DatabaseURL(t, schemas...), "REDIS_URL": testkit.RedisURL(t), "JWKS_URL": "http://127.0.0.1:1/",
		"SMTP_URL": "smtp://127.0.0.1:1", "MAIL_FROM": "Headgate <no-reply@example.com>",
		"PUBLIC_BASE_URL": "https://id.example.com", "EVENT_SEAL_KEY": strings.Repeat("0123456789", 4),
	}
	stdout, stderr, code := testkit.RunProgram(t, environment, "resume", "--send-all")
	if code != 1 || stdout != "" || !strings.Contains(stderr, "it is not checked yet; decide when /readyz") {
		t.Errorf("resume = %q, %q, exit code %d", stdout, stderr, code)
	}
}

// TestResume is REL-71: the service finds that its database is an older copy. The notice
// of /readyz says that mails are withheld, and the command resumes them.
func TestResume(t *testing.T) {
	t.Parallel()
	issuer, redisURL := testkit.NewIssuer(t), testkit.RedisURL(t)
	server := smtptest.New(t)
	environment := map[string]string{
		"DATABASE_URL": testkit.DatabaseURL(t), "REDIS_URL": redisURL, "JWKS_URL": issuer.JWKSURL,
		"SMTP_URL": server.URL, "MAIL_FROM": "Headgate <no-reply@example.com>",
		"PUBLIC_BASE_URL": "https://id.example.com", "EVENT_SEAL_KEY": strings.Repeat("0123456789", 4),
		"RECONCILE_INTERVAL": "1s",
	}
	// What Redis knows of the consumer, and this database does not.
	client := testkit.OpenRedis(t, redisURL, 5*time.Second)
	postWatermarks(t, client)
	known := fmt.Sprintf(`{"generation":"another","handledUntil":%q,"producers":{"auth-service":{"":{"seq":3,"seen":7}}}}`, time.Now().Format(time.RFC3339))
	if err := client.HSet(t.Context(), "watermark:consumed:{email-events}", name, known).Err(); err != nil {
		t.Fatal(err)
	}
	e := testkit.NewEvent(t.Context(), "ann", event.UserPasswordChanged{Method: "change", Email: "ann@example.com", Name: "Ann"})
	e.ProducerSeq = 7
	p := testkit.StartProgram(t, environment)
	testkit.Eventually(t, func() error {
		if ready := p.Ready(); !strings.Contains(ready, "0 so far; decide with email-service resume") {
			return fmt.Errorf("readyz = %s", ready)
		}
		return nil
	})
	testkit.Publish(t, client, event.Email, e)
	testkit.Eventually(t, func() error {
		if ready := p.Ready(); !strings.Contains(ready, `"status":"ready"`) || !strings.Contains(ready, "1 so far; decide with email-service resume") {
			return fmt.Errorf("readyz = %s", ready)
		}
		if !strings.Contains(p.Metrics(), `headgate_mails{status="withheld"} 1`) {
			return errors.New("no metric says that a mail is withheld")
		}
		return nil
	})
	for _, args := range [][]string{{}, {"--send-all", "--skip-before", "2026-01-31T12:00:00Z"}, {"--skip-before", "yesterday"}, {"--send-all", "x"}} {
		if _, stderr, code := testkit.RunProgram(t, environment, append([]string{"resume"}, args...)...); code != 1 || !strings.Contains(stderr, "usage: email-service resume") {
			t.Errorf("resume %v = %d %s", args, code, stderr)
		}
	}
	if n := len(server.To("ann@example.com")); n != 0 {
		t.Fatalf("the mail server accepted %d mails, want none", n)
	}
	stdout, stderr, code := testkit.RunProgram(t, environment, "resume", "--skip-before", "2026-01-31T12:00:00Z")
	if code != 0 || stdout != "mails to send: 1, suppressed: 0\n" {
		t.Errorf("resume = %d %s %s", code, stdout, stderr)
	}
	testkit.Eventually(t, func() error {
		if n := len(server.To("ann@example.com")); n != 1 {
			return fmt.Errorf("the mail server accepted %d mails, want 1", n)
		}
		return nil
	})
	if stdout, stderr, code := testkit.RunProgram(t, environment, "resume", "--send-all"); code != 0 || stdout != "no mails are withheld\n" {
		t.Errorf("a second resume = %d %s %s", code, stdout, stderr)
	}
	if ready := p.Ready(); strings.Contains(ready, "notices") {
		t.Errorf("readyz = %s", ready)
	}
	p.Stop()
}

// TestCommandsDoNotMigrate is REL-92: on a database that is empty, older or half restored,
// resume fails, gaps cannot know, and neither changes anything.
func TestCommandsDoNotMigrate(t *testing.T) {
	t.Parallel()
	testkit.Commands{
		Environment: map[string]string{
			"REDIS_URL": testkit.RedisURL(t), "JWKS_URL": testkit.NewIssuer(t).JWKSURL,
			"SMTP_URL": "smtp://127.0.0.1:1", "MAIL_FROM": "Headgate <no-reply@example.com>",
			"PUBLIC_BASE_URL": "https://id.example.com", "EVENT_SEAL_KEY": strings.Repeat("0123456789", 4),
		},
		Schemas: schemas,
		Exit:    map[string]int{"resume --send-all": 1, "gaps": 2},
	}.WantNoMigration(t)
}

// TestREL86RedeliveredBeforeTheCheck is REL-86: the database is an older copy, and entries
// are redelivered before anybody knows it. No mail is sent before the check, those that may
// have been sent wait for an operator, and fresh ones are sent after it.
func TestREL86RedeliveredBeforeTheCheck(t *testing.T) {
	t.Parallel()
	issuer, redisURL := testkit.NewIssuer(t), testkit.RedisURL(t)
	server := smtptest.New(t)
	p := testkit.StartProgram(t, map[string]string{
		"DATABASE_URL": testkit.DatabaseURL(t), "REDIS_URL": redisURL, "JWKS_URL": issuer.JWKSURL,
		"SMTP_URL": server.URL, "MAIL_FROM": "Headgate <no-reply@example.com>",
		"PUBLIC_BASE_URL": "https://id.example.com", "EVENT_SEAL_KEY": strings.Repeat("0123456789", 4),
		"RECONCILE_INTERVAL": "1s",
	})
	client := testkit.OpenRedis(t, redisURL, 5*time.Second)
	to := [...]string{"handled@example.com", "fresh@example.com"}
	for i, address := range to {
		e := testkit.NewEvent(t.Context(), "ann", event.UserPasswordChanged{Method: "change", Email: address, Name: "Ann"})
		e.ProducerSeq = int64(7 + i)
		testkit.Publish(t, client, event.Email, e)
	}
	// Neither Redis nor a producer has told yet what was handled.
	testkit.Eventually(t, func() error {
		if !strings.Contains(p.Metrics(), `headgate_consumer_paused{topic="email-events"} 1`) {
			return errors.New("the consumer is not paused")
		}
		return nil
	})
	if n := len(server.To(to[0])) + len(server.To(to[1])); n != 0 {
		t.Fatalf("the mail server accepted %d mails before the check, want none", n)
	}
	known := fmt.Sprintf(`{"generation":"another","handledUntil":%q,"producers":{"auth-service":{"":{"seq":3,"seen":7}}}}`, time.Now().Format(time.RFC3339))
	if err := client.HSet(t.Context(), "watermark:consumed:{email-events}", name, known).Err(); err != nil {
		t.Fatal(err)
	}
	postWatermarks(t, client)
	testkit.Eventually(t, func() error {
		if n := len(server.To(to[1])); n != 1 {
			return fmt.Errorf("the mail server accepted %d fresh mails, want 1", n)
		}
		if !strings.Contains(p.Metrics(), `headgate_mails{status="withheld"} 1`) {
			return errors.New("no mail is withheld")
		}
		return nil
	})
	if n := len(server.To(to[0])); n != 0 {
		t.Errorf("the mail server accepted %d mails of an event that was handled, want none", n)
	}
	p.Stop()
}

// TestWithoutRedis is REL-76: while Redis is away, the service is ready, serves requests,
// and says that Redis is away.
func TestWithoutRedis(t *testing.T) {
	t.Parallel()
	issuer := testkit.NewIssuer(t)
	testkit.WantReadyWithoutRedis(t, issuer, map[string]string{
		"DATABASE_URL": testkit.DatabaseURL(t), "JWKS_URL": issuer.JWKSURL,
		"SMTP_URL": "smtp://127.0.0.1:1", "MAIL_FROM": "Headgate <no-reply@example.com>",
		"PUBLIC_BASE_URL": "https://id.example.com", "EVENT_SEAL_KEY": strings.Repeat("0123456789", 4),
	}, "/api/v1/email/dead-letters")
}

func TestMissingConfiguration(t *testing.T) {
	t.Parallel()
	testkit.WantMissing(t, "DATABASE_URL", "REDIS_URL", "JWKS_URL", "SMTP_URL", "MAIL_FROM", "PUBLIC_BASE_URL")
}
