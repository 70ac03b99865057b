package api_test

import (
	"testing"

	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/pkg/testkit"
	"github.com/headgate/headgate/services/auth-service/internal/api"
)

// SEC-107: each read of an administrator leaves one record, and so does a read of rate limits,
// for which the gateway asks.
func TestSEC107ReadsAreRecorded(t *testing.T) {
	t.Parallel()
	s := newService(t)
	ann := s.signup("ann@example.com").Data.User
	root := s.admin()
	testkit.WantReadsRecorded(t, testkit.Reads{
		URL: s.URL, Routes: api.Routes(s.accounts, s.keyring, api.Site{}), DB: s.db, Bearer: root.AccessToken,
		Objects: map[string]string{base + "/users/{id}": ann.ID},
		Events:  []event.Payload{event.UserListed{}, event.UserViewed{}},
	})
	if status, _, _ := s.do("POST", event.RateLimitsPath+"/read", root.AccessToken, "application/json", "{}"); status != 200 {
		t.Errorf("read of rate limits = %d", status)
	}
	s.wantCount(event.Audit, event.AuditRead{}, 1)
}
