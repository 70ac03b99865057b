package tests

import (
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/headgate/headgate/pkg/testkit"
)

// revocationBound is how soon a session that was ended is refused everywhere.
const revocationBound = time.Second

// ownRoutes are one route of each service that everybody may call for
// themselves; email-service has none, so its answer is 403 until it is 401.
var ownRoutes = map[string]string{
	"auth-service":  "/api/v1/auth/sessions",
	"user-service":  "/api/v1/user/me",
	"email-service": "/api/v1/email/messages",
	"audit-service": "/api/v1/audit/me",
}

// TestRevocationReachesEveryService is SEC-13: behind the gateway and without
// it, and still after every process was killed.
func TestRevocationReachesEveryService(t *testing.T) {
	c := newClient(t)
	c.signup(newEmail())
	ended := func() error {
		for service, path := range ownRoutes {
			direct := &client{t: t, gateway: facts(t).ServiceURLs[service], tokens: c.tokens}
			for door, who := range map[string]*client{"gateway": c, service: direct} {
				a, err := who.try("GET", path, nil)
				if err != nil {
					return err
				}
				if a.status != http.StatusUnauthorized || a.Code != "session_revoked" {
					return fmt.Errorf("GET %s at %s = %d %s, want 401 session_revoked", path, door, a.status, a.Code)
				}
			}
		}
		return nil
	}
	for service, path := range ownRoutes {
		if a, err := c.try("GET", path, nil); err != nil || a.status == http.StatusUnauthorized {
			t.Fatalf("GET %s of %s while signed in = %d %s, %v", path, service, a.status, a.Code, err)
		}
	}
	c.do(http.StatusOK, "POST", "/api/v1/auth/logout", nil, nil)
	testkit.Eventually(t, revocationBound, ended)
	c.do(http.StatusOK, "POST", "/api/v1/auth/logout", nil, nil) // It is idempotent.

	for service := range ownRoutes {
		kill(t, service)
	}
	kill(t, "gateway")
	eventually(t, ended)
}
