package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/pkg/testkit"
)

// SEC-103: the command ends the sessions that began before a time, or all. A running service
// refuses their access and refresh tokens, younger sessions stay, and each use is recorded.
func TestSEC103RevokeAllCommand(t *testing.T) {
	t.Parallel()
	redisURL := testkit.RedisURL(t)
	environment := map[string]string{
		"DATABASE_URL": testkit.DatabaseURL(t), "REDIS_URL": redisURL, "PUBLIC_BASE_URL": "http://localhost:8080",
		"REFRESH_TOKEN_SECRET": strings.Repeat("refresh0123456789-", 3),
		"ENCRYPTION_KEY":       strings.Repeat("encrypt0123456789-", 3),
		"EVENT_SEAL_KEY":       strings.Repeat("sealing0123456789-", 3),
	}
	p := testkit.StartProgram(t, environment)
	type session struct{ AccessToken, RefreshToken string }
	begin := func(name string) session {
		t.Helper()
		var in struct{ Tokens session }
		status, data := p.Call("POST", "/api/v1/auth/signup", `{"email":"`+name+`@example.com","password":"correct horse battery","name":"Ann"}`, "")
		if err := json.Unmarshal(data, &in); err != nil || status != 201 {
			t.Fatalf("sign-up of %s = %d %s, %v", name, status, data, err)
		}
		return in.Tokens
	}
	refresh := func(s *session) int {
		t.Helper()
		var out struct{ Tokens session }
		status, data := p.Call("POST", "/api/v1/auth/refresh", `{"refreshToken":"`+s.RefreshToken+`"}`, "")
		if status != 200 {
			return status
		}
		if err := json.Unmarshal(data, &out); err != nil {
			t.Fatalf("refresh = %d %s, %v", status, data, err)
		}
		*s = out.Tokens
		return status
	}
	wantEnded := func(s session) {
		t.Helper()
		if status := refresh(&s); status != 401 {
			t.Errorf("refresh of an ended session = %d, want 401", status)
		}
		testkit.Eventually(t, func() error {
			if status, _ := p.Call("GET", "/api/v1/auth/sessions", "", s.AccessToken); status != 401 {
				return fmt.Errorf("access token of an ended session = %d, want 401", status)
			}
			return nil
		})
	}
	run := func(want string, args ...string) {
		t.Helper()
		stdout, stderr, code := testkit.RunProgram(t, environment, append([]string{"sessions", "revoke-all"}, args...)...)
		if code == 0 && !strings.HasPrefix(stdout, want) || code != 0 && !strings.Contains(stderr, want) {
			t.Fatalf("sessions revoke-all %v = %d %q %q, want %q", args, code, stdout, stderr, want)
		}
	}

	ann := begin("ann")
	before := time.Now().Truncate(time.Second).Add(time.Second)
	testkit.Eventually(t, func() error {
		if time.Now().Before(before) {
			return errors.New("the second in which the first session began has not ended")
		}
		return nil
	})
	bob := begin("bob")
	if status := refresh(&ann); status != 200 { // It does not make the session younger.
		t.Fatalf("refresh = %d, want 200", status)
	}

	run("-before: invalid timestamp", "-before", "yesterday")
	run("must not be in the future", "-before", time.Now().Add(time.Hour).UTC().Format(time.RFC3339))
	at := before.UTC().Format(time.RFC3339)
	run("revoked: all sessions that began before "+at+"\n", "-before", at)
	wantEnded(ann)
	if status, data := p.Call("GET", "/api/v1/auth/sessions", "", bob.AccessToken); status != 200 {
		t.Errorf("access token of a younger session = %d %s, want 200", status, data)
	}
	if status := refresh(&bob); status != 200 {
		t.Errorf("refresh of a younger session = %d, want 200", status)
	}

	run("revoked: all sessions that began before ")
	wantEnded(bob)

	client := testkit.OpenRedis(t, redisURL, 5*time.Second)
	testkit.Eventually(t, func() error {
		entries, err := client.XRange(t.Context(), string(event.Audit), "-", "+").Result()
		if err != nil {
			return err
		}
		recorded := 0
		for _, e := range entries {
			if strings.Contains(fmt.Sprint(e.Values), event.SessionsAllRevoked{}.EventName()) {
				recorded++
			}
		}
		if recorded != 2 {
			return fmt.Errorf("%d uses of the command were recorded, want 2", recorded)
		}
		return nil
	})
}
