package api_test

import (
	"testing"
	"time"

	"github.com/headgate/headgate/pkg/outbox"
	"github.com/headgate/headgate/services/auth-service/internal/store"
)

// A sweep deletes expired rows and no others.
func TestSweep(t *testing.T) {
	t.Parallel()
	s := newService(t)
	rows := store.New(s.db, outbox.New("auth-service"), s.time)
	ann := s.with("Idempotency-Key", "a-key").call("POST", "/signup", "", fields{"email": "ann@example.com", "password": goodPassword, "name": "Ann"}).Data
	s.forgot("ann@example.com")
	s.wantServed()
	s.want(s.try("nobody@example.com", "guess"), 401, "invalid_credentials")
	s.addPasskey(ann.User, ann.Tokens.AccessToken)
	s.want(s.call("POST", "/logout", ann.Tokens.AccessToken, nil), 200, "")
	tables := []string{"finished_ceremonies", "sessions", "one_time_tokens", "revocations", "login_failures", "idempotency_keys", "mails_asked"}
	left := func() map[string]int {
		t.Helper()
		if err := rows.Sweep(t.Context(), s.time()); err != nil {
			t.Fatal(err)
		}
		counts := map[string]int{}
		for _, table := range tables {
			var n int
			if err := s.db.QueryRow(t.Context(), `SELECT count(*) FROM `+table).Scan(&n); err != nil {
				t.Fatal(err)
			}
			counts[table] = n
		}
		return counts
	}
	for table, n := range left() {
		if n == 0 {
			t.Errorf("%s was swept too early", table)
		}
	}
	s.advance(60 * 24 * time.Hour)
	for table, n := range left() {
		if n != 0 {
			t.Errorf("%s still has %d rows", table, n)
		}
	}
	s.login("ann@example.com")
}
