package main

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/pkg/testkit"
	"github.com/headgate/headgate/pkg/token"
)

func TestMain(m *testing.M) { testkit.ProgramMain(m, main) }

// TestProgram: the program migrates an empty database, records an event from its
// stream, serves it, and knows that nothing is missing.
func TestProgram(t *testing.T) {
	t.Parallel()
	issuer, redisURL := testkit.NewIssuer(t), testkit.RedisURL(t)
	environment := map[string]string{
		"DATABASE_URL": testkit.DatabaseURL(t), "REDIS_URL": redisURL, "JWKS_URL": issuer.JWKSURL, "RECONCILE_INTERVAL": "1s",
	}
	p := testkit.StartProgram(t, environment)
	e := testkit.NewEvent(t.Context(), "ann", event.UserLoggedIn{SessionID: "s"})
	testkit.Publish(t, testkit.OpenRedis(t, redisURL, 5*time.Second), event.Audit, e)

	if status, _ := p.Call("GET", "/api/v1/audit/events", "", ""); status != 401 {
		t.Errorf("events without a token = %d, want 401", status)
	}
	admin := issuer.Token(token.Identity{Role: token.RoleAdmin})
	testkit.Eventually(t, 10*time.Second, func() error {
		var records []struct{ ID string }
		status, data := p.Call("GET", "/api/v1/audit/events?type=user.logged_in", "", admin)
		if err := json.Unmarshal(data, &records); err != nil || status != 200 || len(records) != 1 || records[0].ID != e.ID {
			return fmt.Errorf("events = %d %s, %w", status, data, err)
		}
		return nil
	})
	if status, data := p.Call("GET", "/api/v1/audit/dead-letters", "", admin); status != 200 || string(data) != "[]" {
		t.Errorf("dead letters = %d %s", status, data)
	}
	if metrics := p.Metrics(); !strings.Contains(metrics, `headgate_consumer_paused{topic="audit-events"} 0`) {
		t.Error("the metrics do not have the state of the consumer")
	}
	p.Stop()
	// The event came from no outbox, so there is no watermark.
	if out, errs, code := testkit.RunProgram(t, environment, "gaps"); out != "" || code != 2 || !strings.Contains(errs, "auth-service: no watermark yet") {
		t.Errorf("gaps = %q %q, exit code %d", out, errs, code)
	}
	if out, errs, code := testkit.RunProgram(t, environment, "gaps", "accept", "auth-service:1..2", "-reason", "r"); code != 1 || !strings.Contains(errs, "nothing is missing there") {
		t.Errorf("gaps accept = %q %q, exit code %d", out, errs, code)
	}
	if out, errs, code := testkit.RunProgram(t, environment, "dead-letters", "list"); code != 0 {
		t.Errorf("dead-letters list = %q %q, exit code %d", out, errs, code)
	}
}

// TestCommandsDoNotMigrate is REL-92: on a database that is empty, older or half restored,
// gaps cannot know, the other commands fail, and none changes anything.
func TestCommandsDoNotMigrate(t *testing.T) {
	t.Parallel()
	testkit.Commands{
		Environment: map[string]string{"REDIS_URL": testkit.RedisURL(t), "JWKS_URL": testkit.NewIssuer(t).JWKSURL},
		Schemas:     schemas,
		Exit: map[string]int{
			"gaps": 2, "gaps accept auth-service:1..2 -reason r": 1, "dead-letters list": 1, "outbox forget gone": 1,
		},
	}.WantNoMigration(t)
}

// TestWithoutRedis is REL-76: while Redis is away, the service is ready, serves requests,
// and says that Redis is away.
func TestWithoutRedis(t *testing.T) {
	t.Parallel()
	issuer := testkit.NewIssuer(t)
	testkit.WantReadyWithoutRedis(t, issuer, map[string]string{
		"DATABASE_URL": testkit.DatabaseURL(t), "JWKS_URL": issuer.JWKSURL,
	}, "/api/v1/audit/dead-letters")
}

func TestMissingConfiguration(t *testing.T) {
	t.Parallel()
	testkit.WantMissing(t, "DATABASE_URL", "REDIS_URL", "JWKS_URL")
}
