package api_test

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/services/auth-service/internal/account"
)

// SEC-82: one account, one mail and one event, with and without a key.
func TestSEC82ParallelSignups(t *testing.T) {
	t.Parallel()
	for name, key := range map[string]string{"without a key": "", "with a key": "6a1f"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newService(t)
			caller := s
			if key != "" {
				caller = s.with("Idempotency-Key", key)
			}
			answers := make(chan answer, 50)
			var wg sync.WaitGroup
			for range cap(answers) {
				wg.Go(func() {
					answers <- caller.call("POST", "/signup", "", fields{"email": "ann@example.com", "password": goodPassword, "name": "Ann"})
				})
			}
			wg.Wait()
			close(answers)
			count := map[string]int{}
			for a := range answers {
				count[fmt.Sprintf("%d %s %s", a.status, a.Code, a.header.Get("Idempotency-Replayed"))]++
			}
			if count["201  "] != 1 || count["201  "]+count["201  true"]+count["409 email_taken "]+count["409 idempotency_in_progress "] != 50 {
				t.Errorf("answers = %v", count)
			}
			if key != "" && count["409 email_taken "] != 0 {
				t.Errorf("a repeated request was refused as another one: %v", count)
			}
			if n, mails := s.count(event.User, event.UserSignedUp{}), s.count(event.Email, event.UserVerificationRequested{}); n != 1 || mails != 1 {
				t.Errorf("%d sign-ups, %d mails, want one each", n, mails)
			}
		})
	}
}

// SEC-81: a repeated request gets the first answer.
func TestSEC81IdempotencyKey(t *testing.T) {
	t.Parallel()
	s := newService(t)
	once := s.with("Idempotency-Key", "a-key")
	body := fields{"email": "ann@example.com", "password": goodPassword, "name": "Ann"}
	// A refused request releases the key.
	s.want(once.call("POST", "/signup", "", fields{"email": "ann@example.com", "password": "short", "name": "Ann"}), 400, "validation_failed")
	first := s.want(once.call("POST", "/signup", "", body), 201, "")
	again := s.want(once.call("POST", "/signup", "", body), 201, "")
	if first.header.Get("Idempotency-Replayed") != "" || again.header.Get("Idempotency-Replayed") != "true" {
		t.Errorf("Idempotency-Replayed = %q, then %q", first.header.Get("Idempotency-Replayed"), again.header.Get("Idempotency-Replayed"))
	}
	if diff := cmp.Diff(first.Data, again.Data); diff != "" {
		t.Errorf("the second answer is another one:\n%s", diff)
	}
	s.want(once.call("POST", "/signup", "", fields{"email": "bob@example.com", "password": goodPassword, "name": "Bob"}), 409, "idempotency_key_reused")
	s.want(s.with("Idempotency-Key", "another-key").call("POST", "/signup", "", body), 409, "email_taken")
	for _, bad := range []string{"a key", "ä", string(make([]byte, 0)), fmt.Sprintf("%0256d", 0)} {
		s.want(s.with("Idempotency-Key", bad).call("POST", "/signup", "", body), 400, "validation_failed")
	}
	s.advance(24*time.Hour + time.Second)
	s.want(once.call("POST", "/signup", "", fields{"email": "bob@example.com", "password": goodPassword, "name": "Bob"}), 201, "")
	var stored string
	if err := s.db.QueryRow(t.Context(), `SELECT string_agg(answer, '') FROM idempotency_keys`).Scan(&stored); err != nil {
		t.Fatal(err)
	}
	if stored == "" || strings.Contains(stored, "ann@example.com") || strings.Contains(stored, first.Data.Tokens.RefreshToken) {
		t.Errorf("the answers are kept as %q, want them sealed", stored)
	}
}

// The key of a process that died is released after a minute.
func TestIdempotencyKeyOfADeadProcess(t *testing.T) {
	t.Parallel()
	s := newService(t)
	once := s.with("Idempotency-Key", "a-key")
	body := fields{"email": "ann@example.com", "password": goodPassword, "name": "Ann"}
	s.want(once.call("POST", "/signup", "", body), 201, "")
	if _, err := s.db.Exec(t.Context(), `UPDATE idempotency_keys SET answer = NULL`); err != nil {
		t.Fatal(err)
	}
	s.want(once.call("POST", "/signup", "", body), 409, "idempotency_in_progress")
	s.advance(time.Minute)
	s.want(once.call("POST", "/signup", "", body), 409, "email_taken")
}

func TestIdempotencyKeyInStrictMode(t *testing.T) {
	t.Parallel()
	s := newService(t, func(cfg *account.Config) { cfg.Mode = account.SignUpStrict })
	once := s.with("Idempotency-Key", "a-key")
	body := fields{"email": "ann@example.com", "password": goodPassword, "name": "Ann"}
	s.want(once.call("POST", "/signup", "", body), 202, "")
	if again := s.want(once.call("POST", "/signup", "", body), 202, ""); again.header.Get("Idempotency-Replayed") != "true" {
		t.Error("the second answer is not a replay")
	}
	s.wantServed()
	if n := s.count(event.Email, event.UserSignUpRepeated{}); n != 0 {
		t.Errorf("%d notices of a sign-up that was sent twice", n)
	}
}
