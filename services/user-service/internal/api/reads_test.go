package api_test

import (
	"testing"

	"github.com/redis/go-redis/v9"

	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/pkg/testkit"
	"github.com/headgate/headgate/pkg/token"
	"github.com/headgate/headgate/services/user-service/internal/api"
)

// junk makes a dead letter and returns its id.
func (s *service) junk(topic event.Topic) string {
	s.t.Helper()
	if err := s.redis.XAdd(s.t.Context(), &redis.XAddArgs{Stream: string(topic), Values: []string{"junk", "1"}}).Err(); err != nil {
		s.t.Fatal(err)
	}
	var id string
	testkit.Eventually(s.t, func() error {
		return s.db.QueryRow(s.t.Context(), `SELECT id FROM dead_letters LIMIT 1`).Scan(&id)
	})
	return id
}

// SEC-107: each read of an administrator leaves one record.
func TestSEC107ReadsAreRecorded(t *testing.T) {
	t.Parallel()
	s := newService(t, testkit.RedisURL(t))
	ann := newUser()
	s.want(s.do(ann, "GET", "/me", ""), 200)
	deadLetter := s.junk(event.User)
	testkit.WantReadsRecorded(t, testkit.Reads{
		URL: s.URL, Routes: s.routes, DB: s.db, Bearer: s.issuer.Token(token.Identity{UserID: newUser().UserID, Role: token.RoleAdmin}),
		Objects: map[string]string{api.Prefix + "/{id:[0-9A-Fa-f-]{36}}": ann.UserID, api.Prefix + "/dead-letters/{id}": deadLetter},
	})
}
