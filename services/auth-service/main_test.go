package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/pkg/testkit"
)

func TestMain(m *testing.M) { testkit.ProgramMain(m, main) }

// TestProgram: the program migrates an empty database, creates the first
// administrator, signs somebody up and in with hashes from its worker processes, and
// publishes the events. Its commands work on the same database.
func TestProgram(t *testing.T) {
	t.Parallel()
	testkit.ThroughPoolers(t, testProgram)
}

func testProgram(t *testing.T, databaseURL string) {
	t.Helper()
	const password = "correct horse battery"
	redisURL := testkit.RedisURL(t)
	environment := map[string]string{
		"DATABASE_URL": databaseURL, "REDIS_URL": redisURL, "PUBLIC_BASE_URL": "http://localhost:8080",
		"REFRESH_TOKEN_SECRET": strings.Repeat("refresh0123456789-", 3),
		"ENCRYPTION_KEY":       strings.Repeat("encrypt0123456789-", 3),
		"EVENT_SEAL_KEY":       strings.Repeat("sealing0123456789-", 3),
		"ADMIN_EMAIL":          "root@example.com", "ADMIN_PASSWORD": password,
	}
	p := testkit.StartProgram(t, environment)
	status, data := p.Call("POST", "/api/v1/auth/signup", `{"email":"ann@example.com","password":"`+password+`","name":"Ann"}`, "")
	if status != 201 {
		t.Fatalf("signup = %d %s", status, data)
	}
	token := func(email string) string {
		var in struct {
			Tokens struct{ AccessToken string }
		}
		status, data := p.Call("POST", "/api/v1/auth/login", `{"email":"`+email+`","password":"`+password+`"}`, "")
		if err := json.Unmarshal(data, &in); err != nil || status != 200 || in.Tokens.AccessToken == "" {
			t.Fatalf("login of %s = %d %s, %v", email, status, data, err)
		}
		return in.Tokens.AccessToken
	}
	if status, data := p.Call("GET", "/api/v1/auth/sessions", "", token("ann@example.com")); status != 200 {
		t.Errorf("sessions = %d %s", status, data)
	}
	changeTypes(t, databaseURL)
	if status, data := p.Call("GET", "/api/v1/auth/sessions", "", token("ann@example.com")); status != 200 {
		t.Errorf("sessions after a change of the schema = %d %s", status, data)
	}
	if status, data := p.Call("GET", "/api/v1/auth/users", "", token("root@example.com")); status != 200 {
		t.Errorf("users = %d %s", status, data)
	}
	client := testkit.OpenRedis(t, redisURL, 5*time.Second)
	for _, topic := range []event.Topic{event.Audit, event.Email, event.User} {
		testkit.Eventually(t, func() error {
			if n, err := client.XLen(t.Context(), string(topic)).Result(); err != nil || n == 0 {
				return fmt.Errorf("%d entries on %s, %w", n, topic, err)
			}
			return nil
		})
	}
	p.Stop()
	if out := p.Log(); strings.Contains(out, password) {
		t.Error("the log shows a password")
	}
	if out, errs, code := testkit.RunProgram(t, environment, "keys", "list"); code != 0 || !strings.Contains(out, "active") {
		t.Errorf("keys list = %q %q, exit code %d", out, errs, code)
	}
	if out, errs, code := testkit.RunProgram(t, environment, "users", "export"); code != 0 || strings.Count(out, "\n") != 2 {
		t.Errorf("users export = %q %q, exit code %d", out, errs, code)
	}
}

// changeTypes gives columns that every sign-in reads another type, as a migration of a later
// release can: REL-95.
func changeTypes(t *testing.T, databaseURL string) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), databaseURL)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	const change = `ALTER TABLE accounts ALTER name TYPE varchar(1000); ALTER TABLE sessions ALTER generation TYPE bigint, ALTER user_agent TYPE varchar(1000)`
	if _, err := conn.Exec(t.Context(), change, pgx.QueryExecModeSimpleProtocol); err != nil {
		t.Fatal(err)
	}
}

// SEC-102: a request that needs a locked row is answered within seconds, and the client is
// told to retry. Other accounts are not delayed, and logins that were not answered do not
// count as failed.
func TestSEC102LockedAccount(t *testing.T) {
	t.Parallel()
	const password = "correct horse battery"
	address := testkit.DatabaseURL(t)
	p := testkit.StartProgram(t, map[string]string{
		"DATABASE_URL": address, "REDIS_URL": testkit.RedisURL(t), "PUBLIC_BASE_URL": "http://localhost:8080",
		"REFRESH_TOKEN_SECRET": strings.Repeat("refresh0123456789-", 3),
		"ENCRYPTION_KEY":       strings.Repeat("encrypt0123456789-", 3),
		"EVENT_SEAL_KEY":       strings.Repeat("sealing0123456789-", 3),
	})
	tokens := map[string]string{}
	for _, email := range []string{"ann@example.com", "bob@example.com"} {
		var in struct {
			Tokens struct{ AccessToken string }
		}
		status, data := p.Call("POST", "/api/v1/auth/signup", `{"email":"`+email+`","password":"`+password+`","name":"Ann"}`, "")
		if err := json.Unmarshal(data, &in); err != nil || status != 201 {
			t.Fatalf("signup = %d %s, %v", status, data, err)
		}
		tokens[email] = in.Tokens.AccessToken
	}
	db, err := pgx.Connect(t.Context(), address)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close(context.Background()) // It ends the transaction, which changes nothing.
	if _, err := db.Exec(t.Context(), `BEGIN; SELECT FROM accounts WHERE email = 'ann@example.com' FOR UPDATE`); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	if status, wait := retryAfter(t, p.URL+"/api/v1/auth/logout-all", "", tokens["ann@example.com"]); status != 503 || wait == "" {
		t.Errorf("request that needs the locked account = %d, Retry-After %q, want 503 and a time", status, wait)
	}
	if took := time.Since(began); took > 30*time.Second { // lock_timeout, on a busy machine
		t.Errorf("it took %s", took)
	}
	if status, data := p.Call("POST", "/api/v1/auth/logout-all", "", tokens["bob@example.com"]); status != 200 {
		t.Errorf("request of another account = %d %s", status, data)
	}
	const login = `{"email":"ann@example.com","password":"` + password + `"}`
	var logins sync.WaitGroup
	for range 12 { // more than may fail without a wait
		logins.Go(func() {
			if status, wait := retryAfter(t, p.URL+"/api/v1/auth/login", login, ""); status != 503 && status != 429 || wait == "" {
				t.Errorf("login to the locked account = %d, Retry-After %q", status, wait)
			}
		})
	}
	logins.Wait()
	if _, err := db.Exec(t.Context(), `ROLLBACK`); err != nil {
		t.Fatal(err)
	}
	var failures int
	if err := db.QueryRow(t.Context(), `SELECT sum(failures) FROM login_failures`).Scan(&failures); err != nil || failures != 0 {
		t.Errorf("%d logins count as failed (%v)", failures, err)
	}
	if status, wait := retryAfter(t, p.URL+"/api/v1/auth/login", login, ""); status != 200 {
		t.Errorf("login afterwards = %d, Retry-After %q", status, wait)
	}
}

// retryAfter sends a POST request, and returns the status of the response and how long the
// client is told to wait.
func retryAfter(t *testing.T, address, body, bearer string) (status int, wait string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, address, strings.NewReader(body))
	if err != nil {
		t.Error(err)
		return 0, ""
	}
	req.Header.Set("Content-Type", "application/json")
	if bearer != "" {
		req.Header.Set("Authorization", "Bearer "+bearer)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Error(err)
		return 0, ""
	}
	defer res.Body.Close()
	return res.StatusCode, res.Header.Get("Retry-After")
}

// TestCommandsDoNotMigrate is REL-92: on a database that is empty, older or half restored,
// the commands fail and change nothing.
func TestCommandsDoNotMigrate(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "users.ndjson")
	if err := os.WriteFile(file, []byte(`{"email":"ann@example.com","name":"Ann"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	testkit.Commands{
		Environment: map[string]string{
			"REDIS_URL": testkit.RedisURL(t), "PUBLIC_BASE_URL": "http://localhost:8080",
			"REFRESH_TOKEN_SECRET": strings.Repeat("refresh0123456789-", 3),
			"ENCRYPTION_KEY":       strings.Repeat("encrypt0123456789-", 3),
			"EVENT_SEAL_KEY":       strings.Repeat("sealing0123456789-", 3),
		},
		Schemas: schemas,
		Exit: map[string]int{
			"admin create root@example.com": 1, "keys list": 1, "keys rotate": 1,
			"sessions revoke-all": 1, "users import " + file: 1, "users export": 1, "outbox forget gone": 1,
		},
	}.WantNoMigration(t)
}

func TestSEC113PlainHTTPIsRefused(t *testing.T) {
	t.Parallel()
	secret := strings.Repeat("0123456789", 4)
	_, log, code := testkit.RunProgram(t, map[string]string{
		"ENV": "production", "DATABASE_URL": testkit.DatabaseURL(t), "REDIS_URL": testkit.RedisURL(t),
		"REFRESH_TOKEN_SECRET": secret + "r", "ENCRYPTION_KEY": secret + "e", "EVENT_SEAL_KEY": secret + "s",
		"PUBLIC_BASE_URL": "http://id.example.com", "APP_URL": "http://app.example.com",
	})
	if code != 1 || strings.Count(log, "want https in production") != 2 || !strings.Contains(log, "PUBLIC_BASE_URL") || !strings.Contains(log, "APP_URL") {
		t.Errorf("exit code %d, log %s", code, log)
	}
}

func TestMissingConfiguration(t *testing.T) {
	t.Parallel()
	testkit.WantMissing(t, "DATABASE_URL", "REDIS_URL", "PUBLIC_BASE_URL")
}
