package api_test

import (
	"testing"

	"github.com/redis/go-redis/v9"

	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/pkg/testkit"
	"github.com/headgate/headgate/services/audit-service/internal/api"
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

// SEC-107: each read of an administrator or auditor leaves one record, and that record is the
// only one that the read of the audit log causes.
func TestSEC107ReadsAreRecorded(t *testing.T) {
	t.Parallel()
	s := newService(t)
	e := newEvent("subject", event.Origin{}, event.UserLoggedIn{})
	s.publish(e)
	s.wantRecords(1)
	deadLetter := s.junk(event.Audit)
	testkit.WantReadsRecorded(t, testkit.Reads{
		URL: s.URL, Routes: s.routes, DB: s.db, Bearer: s.issuer.Token(admin),
		Objects: map[string]string{api.Prefix + "/events/{id}": e.ID, api.Prefix + "/dead-letters/{id}": deadLetter},
	})
}
