package main

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"

	"github.com/headgate/headgate/pkg/bus"
	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/pkg/outbox"
	"github.com/headgate/headgate/pkg/postgres"
	"github.com/headgate/headgate/pkg/reconcile"
	"github.com/headgate/headgate/pkg/testkit"
	"github.com/headgate/headgate/pkg/token"
)

func TestMain(m *testing.M) { testkit.ProgramMain(m, main) }

// TestProgram: the program migrates an empty database, records an event from its
// stream, serves it, and knows that nothing is missing.
func TestProgram(t *testing.T) {
	t.Parallel()
	testkit.ThroughPoolers(t, testProgram)
}

func testProgram(t *testing.T, databaseURL string) {
	t.Helper()
	issuer, redisURL := testkit.NewIssuer(t), testkit.RedisURL(t)
	environment := map[string]string{
		"DATABASE_URL": databaseURL, "REDIS_URL": redisURL, "JWKS_URL": issuer.JWKSURL, "RECONCILE_INTERVAL": "1s",
	}
	p := testkit.StartProgram(t, environment)
	e := testkit.NewEvent(t.Context(), "ann", event.UserLoggedIn{SessionID: "s"})
	testkit.Publish(t, testkit.OpenRedis(t, redisURL, 5*time.Second), event.Audit, e)

	if status, _ := p.Call("GET", "/api/v1/audit/events", "", ""); status != 401 {
		t.Errorf("events without a token = %d, want 401", status)
	}
	admin := issuer.Token(token.Identity{Role: token.RoleAdmin})
	testkit.Eventually(t, func() error {
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

// producer is a service during a rolling update: its database, and what its two releases
// publish from it.
type producer struct {
	t      *testing.T
	name   string
	db     *postgres.Pool
	client redis.UniversalClient
}

// previousRelease runs the relay of the release before signatures. The watermarks of that
// release are under other keys, which this one does not read.
func (p producer) previousRelease() testkit.Running {
	return testkit.Run(p.t, outbox.NewRelay(p.db, bus.NewPublisher(p.client), p.epochs(), testkit.Log(p.t), prometheus.NewRegistry()))
}

// thisRelease runs the relay and the producer's side of reconciliation.
func (p producer) thisRelease() {
	publisher := bus.NewSigningPublisher(p.client, testkit.Signer(p.t, p.name))
	epochs := p.epochs()
	testkit.Run(p.t, outbox.NewRelay(p.db, publisher, epochs, testkit.Log(p.t), prometheus.NewRegistry()))
	testkit.Run(p.t, reconcile.NewProducer(reconcile.ProducerConfig{
		Name: p.name, Outbox: outbox.NewPublished(p.db, publisher, epochs), Redis: p.client,
		Interval: time.Second, Log: testkit.Log(p.t), Metrics: prometheus.NewRegistry(),
	}))
}

func (p producer) epochs() *outbox.Epochs {
	return outbox.NewEpochs(p.db, p.client, p.name, testkit.Log(p.t), prometheus.NewRegistry())
}

// login commits the event of a sign-in and returns its id.
func (p producer) login() string {
	p.t.Helper()
	e := event.New(p.t.Context(), time.Now(), "ann", event.UserLoggedIn{SessionID: "s"})
	e.ID = uuid.Must(uuid.NewV7()).String()
	err := pgx.BeginFunc(p.t.Context(), p.db, func(tx pgx.Tx) error {
		return outbox.New(p.name).Add(p.t.Context(), tx, e)
	})
	if err != nil {
		p.t.Fatal(err)
	}
	return e.ID
}

// TestSEC116MixedReleases is SEC-116: while the previous release publishes unsigned events,
// accept-unsigned records them at once. With require they become dead letters, this release of
// the producer publishes them again, and then their replay adds nothing.
func TestSEC116MixedReleases(t *testing.T) {
	t.Parallel()
	issuer, redisURL := testkit.NewIssuer(t), testkit.RedisURL(t)
	environment := map[string]string{
		"DATABASE_URL": testkit.DatabaseURL(t), "REDIS_URL": redisURL, "JWKS_URL": issuer.JWKSURL, "RECONCILE_INTERVAL": "1s",
		"EVENT_SIGNATURES": "accept-unsigned",
	}
	client, producers := testkit.OpenRedis(t, redisURL, bus.EventTimeout), map[string]producer{}
	for _, name := range []string{"auth-service", "user-service", "email-service"} {
		producers[name] = producer{t, name, testkit.Database(t, outbox.Schema()), client}
	}
	auth := producers["auth-service"]
	admin := issuer.Token(token.Identity{Role: token.RoleAdmin})
	records := func(p *testkit.Program, path string, want int) (found []struct{ ID, EventID, Reason, Status string }) {
		t.Helper()
		testkit.Eventually(t, func() error {
			status, data := p.Call("GET", "/api/v1/audit/"+path, "", admin)
			if err := json.Unmarshal(data, &found); err != nil || status != 200 || len(found) != want {
				return fmt.Errorf("%s = %d %s, %w, want %d", path, status, data, err, want)
			}
			return nil
		})
		return found
	}

	p := testkit.StartProgram(t, environment)
	old := auth.previousRelease()
	auth.login()
	records(p, "events?type=user.logged_in", 1)
	records(p, "dead-letters", 0)
	if metrics := p.Metrics(); !strings.Contains(metrics, `headgate_event_signatures_total{result="accepted_unsigned",topic="audit-events"} 1`) {
		t.Error("the unsigned event was not counted as accepted")
	}
	p.Stop()

	environment["EVENT_SIGNATURES"] = "require"
	p = testkit.StartProgram(t, environment)
	unsigned := auth.login()
	refused := records(p, "dead-letters", 1)[0]
	if refused.EventID != unsigned || !strings.HasPrefix(refused.Reason, "unsigned") {
		t.Errorf("dead letter %+v, want that of %s, unsigned", refused, unsigned)
	}
	records(p, "events?type=user.logged_in", 1)
	old.Stop()
	for _, upgraded := range producers {
		upgraded.thisRelease()
	}
	records(p, "events?type=user.logged_in", 2)
	p.Stop()

	environment["EVENT_SIGNATURES"] = "accept-unsigned"
	p = testkit.StartProgram(t, environment)
	if status, data := p.Call("POST", "/api/v1/audit/dead-letters/"+refused.ID+"/replay", "", admin); status != 200 {
		t.Errorf("replay = %d %s", status, data)
	}
	records(p, "dead-letters?status=replayed", 1)
	records(p, "events?type=user.logged_in", 2)
	records(p, "dead-letters?status=open", 0)
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
