package main

import (
	"context"
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/pkg/testkit"
	"github.com/headgate/headgate/pkg/token"
)

func TestMain(m *testing.M) { testkit.ProgramMain(m, main) }

// TestProgram: the program migrates an empty database, projects a profile from its
// stream, changes it, and publishes the event of the change.
func TestProgram(t *testing.T) {
	t.Parallel()
	testkit.ThroughPoolers(t, testProgram)
}

func testProgram(t *testing.T, databaseURL string) {
	t.Helper()
	issuer, redisURL := testkit.NewIssuer(t), testkit.RedisURL(t)
	p := testkit.StartProgram(t, map[string]string{
		"DATABASE_URL": databaseURL, "REDIS_URL": redisURL, "JWKS_URL": issuer.JWKSURL,
	})
	client := testkit.OpenRedis(t, redisURL, 5*time.Second)
	ann := token.Identity{UserID: "01a20b47-a923-7f3e-ba6c-36d6c0ae6def", Role: token.RoleUser, Email: "ann@example.com", Name: "Ann"}
	testkit.Publish(t, client, event.User, testkit.NewEvent(t.Context(), ann.UserID, event.UserSignedUp{Email: ann.Email, Name: ann.Name, Role: ann.Role}))

	if status, _ := p.Call("GET", "/api/v1/user/me", "", ""); status != 401 {
		t.Errorf("me without a token = %d, want 401", status)
	}
	admin := issuer.Token(token.Identity{Role: token.RoleAdmin})
	testkit.Eventually(t, func() error {
		if status, data := p.Call("GET", "/api/v1/user/"+ann.UserID, "", admin); status != 200 {
			return fmt.Errorf("profile = %d %s", status, data)
		}
		return nil
	})
	var profile struct{ Bio string }
	status, data := p.Call("PATCH", "/api/v1/user/me", `{"bio":"Counts."}`, issuer.Token(ann))
	if err := json.Unmarshal(data, &profile); err != nil || status != 200 || profile.Bio != "Counts." {
		t.Errorf("PATCH me = %d %s, %v", status, data, err)
	}
	testkit.Eventually(t, func() error {
		if n, err := client.XLen(t.Context(), string(event.Audit)).Result(); err != nil || n == 0 {
			return fmt.Errorf("%d entries on %s, %w", n, event.Audit, err)
		}
		return nil
	})
	p.Stop()
}

// TestCommandsDoNotMigrate is REL-92: on a database that is empty, older or half restored,
// gaps cannot know, and changes nothing.
func TestCommandsDoNotMigrate(t *testing.T) {
	t.Parallel()
	testkit.Commands{
		Environment: map[string]string{"REDIS_URL": testkit.RedisURL(t), "JWKS_URL": testkit.NewIssuer(t).JWKSURL},
		Schemas:     schemas,
		Exit:        map[string]int{"gaps": 2},
	}.WantNoMigration(t)
}

// TestLockedRow is REL-61: a request that meets a locked row gets a 503 within three
// seconds. It does not wait for the timeout of the statement.
func TestLockedRow(t *testing.T) {
	t.Parallel()
	issuer, database := testkit.NewIssuer(t), testkit.DatabaseURL(t)
	p := testkit.StartProgram(t, map[string]string{
		"DATABASE_URL": database, "REDIS_URL": testkit.RedisURL(t), "JWKS_URL": issuer.JWKSURL,
	})
	ann := issuer.Token(token.Identity{UserID: "01a20b47-a923-7f3e-ba6c-36d6c0ae6def", Role: token.RoleUser, Email: "ann@example.com", Name: "Ann"})
	if status, data := p.Call("PATCH", "/api/v1/user/me", `{"bio":"One."}`, ann); status != 200 {
		t.Fatalf("PATCH me = %d %s", status, data)
	}
	conn, err := pgx.Connect(t.Context(), database)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	tx, err := conn.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(t.Context(), `SELECT 1 FROM profiles FOR UPDATE`); err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	status, data := p.Call("PATCH", "/api/v1/user/me", `{"bio":"Two."}`, ann)
	if took := time.Since(start); status != 503 || took > 30*time.Second { // 3 s on an idle machine
		t.Errorf("PATCH me = %d %s after %s, want 503 soon", status, data, took)
	}
	if err := tx.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	if status, data := p.Call("PATCH", "/api/v1/user/me", `{"bio":"Three."}`, ann); status != 200 {
		t.Errorf("PATCH me after the lock was released = %d %s", status, data)
	}
}

// TestWithoutRedis is REL-76: while Redis is away, the service is ready, serves requests,
// and says that Redis is away.
func TestWithoutRedis(t *testing.T) {
	t.Parallel()
	issuer := testkit.NewIssuer(t)
	testkit.WantReadyWithoutRedis(t, issuer, map[string]string{
		"DATABASE_URL": testkit.DatabaseURL(t), "JWKS_URL": issuer.JWKSURL,
	}, "/api/v1/user/dead-letters")
}

func TestMissingConfiguration(t *testing.T) {
	t.Parallel()
	testkit.WantMissing(t, "DATABASE_URL", "REDIS_URL", "JWKS_URL")
}
