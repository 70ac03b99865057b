package main

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/headgate/headgate/pkg/bus"
	"github.com/headgate/headgate/pkg/deadletter"
	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/pkg/outbox"
	"github.com/headgate/headgate/pkg/reconcile"
	"github.com/headgate/headgate/pkg/testkit"
	"github.com/headgate/headgate/pkg/token"
	"github.com/headgate/headgate/services/email-service/internal/smtptest"
)

// TestREL85ReplayOfARestoredDatabase is REL-85: the lost database had replayed the dead
// letter, the copy says that the replay is pending. It does not run by itself. If an
// operator requests it again, the mail is withheld.
func TestREL85ReplayOfARestoredDatabase(t *testing.T) {
	t.Parallel()
	issuer, redisURL, databaseURL := testkit.NewIssuer(t), testkit.RedisURL(t), testkit.DatabaseURL(t, schemas...)
	server := smtptest.New(t)
	db := testkit.OpenDatabase(t, databaseURL)
	deadLetters := deadletter.New(db, outbox.New(name), time.Now)
	e := testkit.NewEvent(t.Context(), "ann", event.UserPasswordChanged{Method: "change", Email: "ann@example.com", Name: "Ann"})
	e.ProducerSeq = 7
	m := testkit.Message(t, e)
	m.Metadata.Set(bus.TopicKey, string(event.Email))
	if err := deadLetters.Publish("", m); err != nil {
		t.Fatal(err)
	}
	if outcome, err := deadLetters.ReplayMatching(t.Context(), deadletter.Filter{}, 10); err != nil || outcome.Requested != 1 {
		t.Fatalf("ReplayMatching() = %+v, %v", outcome, err)
	}
	client := testkit.OpenRedis(t, redisURL, 5*time.Second)
	known := fmt.Sprintf(`{"generation":"another","handledUntil":%q,"producers":{%q:{"":{"seq":7,"seen":7}}}}`, time.Now().Format(time.RFC3339), e.Producer)
	if err := client.HSet(t.Context(), "watermark:consumed:{email-events}", name, known).Err(); err != nil {
		t.Fatal(err)
	}

	box, publisher := testkit.Database(t, outbox.Schema()), bus.NewPublisher(client)
	testkit.Run(t, reconcile.NewProducer(reconcile.ProducerConfig{
		Name: "auth-service", Redis: client, Interval: 200 * time.Millisecond, Log: testkit.Log(t), Metrics: prometheus.NewRegistry(),
		Outbox: outbox.NewPublished(box, publisher, outbox.NewEpochs(box, client, "auth-service", testkit.Log(t), prometheus.NewRegistry())),
	}))
	p := testkit.StartProgram(t, map[string]string{
		"DATABASE_URL": databaseURL, "REDIS_URL": redisURL, "JWKS_URL": issuer.JWKSURL,
		"SMTP_URL": server.URL, "MAIL_FROM": "Headgate <no-reply@example.com>",
		"PUBLIC_BASE_URL": "https://id.example.com", "EVENT_SEAL_KEY": strings.Repeat("0123456789", 4),
		"RECONCILE_INTERVAL": "1s",
	})
	admin := issuer.Token(token.Identity{Role: token.RoleAdmin})
	var id string
	wantStatus := func(status string) {
		t.Helper()
		testkit.Eventually(t, func() error {
			var found []struct{ ID, Status string }
			code, data := p.Call("GET", "/api/v1/email/dead-letters", "", admin)
			if err := json.Unmarshal(data, &found); err != nil || code != 200 || len(found) != 1 || found[0].Status != status {
				return fmt.Errorf("dead letters = %d %s, %w, want %s", code, data, err, status)
			}
			id = found[0].ID
			return nil
		})
	}
	wantStatus(deadletter.Open)
	if log := p.Log(); !strings.Contains(log, "replays canceled") {
		t.Errorf("the log does not say that replays were canceled:\n%s", log)
	}
	if status, data := p.Call("POST", "/api/v1/email/dead-letters/"+id+"/replay", "", admin); status != 200 {
		t.Fatalf("replay = %d %s", status, data)
	}
	wantStatus(deadletter.Replayed)
	if ready := p.Ready(); !strings.Contains(ready, "1 so far; decide with email-service resume") {
		t.Errorf("readyz = %s", ready)
	}
	if n := len(server.To("ann@example.com")); n != 0 {
		t.Errorf("the mail server accepted %d mails, want none", n)
	}
	p.Stop()
}
