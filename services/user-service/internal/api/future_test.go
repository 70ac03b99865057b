package api_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/pkg/testkit"
)

// TestSEC117ChangeFromTheFuture is SEC-117: an address that was changed in a distant future
// does not keep later changes away, and later is after that clock was put right.
func TestSEC117ChangeFromTheFuture(t *testing.T) {
	t.Parallel()
	s, ann := newService(t, testkit.RedisURL(t)), newUser()
	change := func(email string, at time.Time) {
		t.Helper()
		e := testkit.NewEvent(t.Context(), ann.UserID, event.UserEmailChanged{Email: email})
		e.OccurredAt = at
		testkit.Publish(t, s.redis, event.User, e)
		testkit.Eventually(t, func() error {
			var got string
			if err := s.db.QueryRow(t.Context(), `SELECT email FROM profiles WHERE user_id = $1`, ann.UserID).Scan(&got); err != nil || got != email {
				return fmt.Errorf("email = %q, %w, want %q", got, err, email)
			}
			return nil
		})
	}
	change("future@example.com", time.Date(2099, 1, 1, 0, 0, 0, 0, time.UTC))
	change("now@example.com", time.Now().Add(2*time.Minute))
	var future int
	if err := s.db.QueryRow(t.Context(), `SELECT count(*) FROM profiles WHERE updated_at > now() + interval '1 hour'`).Scan(&future); err != nil || future != 0 {
		t.Errorf("%d profiles were changed in the future, %v", future, err)
	}
}
