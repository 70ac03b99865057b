package api_test

import (
	"testing"

	"github.com/redis/go-redis/v9"

	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/pkg/testkit"
	"github.com/headgate/headgate/pkg/token"
	"github.com/headgate/headgate/services/email-service/internal/api"
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
	s := newService(t)
	s.publish(s.requested("ann@example.com", nil))
	var message string
	testkit.Eventually(t, func() error {
		return s.db.QueryRow(t.Context(), `SELECT id FROM messages LIMIT 1`).Scan(&message)
	})
	deadLetter := s.junk(event.Email)
	testkit.WantReadsRecorded(t, testkit.Reads{
		URL: s.URL, Routes: s.routes, DB: s.db, Bearer: s.issuer.Token(token.Identity{Role: token.RoleAdmin}),
		Objects: map[string]string{api.Prefix + "/messages/{id}": message, api.Prefix + "/dead-letters/{id}": deadLetter},
	})
}
