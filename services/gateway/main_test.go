package main

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/headgate/headgate/pkg/testkit"
	"github.com/headgate/headgate/pkg/token"
	"github.com/headgate/headgate/pkg/web"
)

func TestMain(m *testing.M) { testkit.ProgramMain(m, main) }

// TestProgram: the program forwards requests to the services, verifies tokens, and
// counts logins in Redis.
func TestProgram(t *testing.T) {
	t.Parallel()
	upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_ = web.OK(w, http.StatusOK, map[string]string{"path": r.URL.Path}) // It always encodes.
	}))
	t.Cleanup(upstream.Close)
	issuer := testkit.NewIssuer(t)
	p := testkit.StartProgram(t, map[string]string{
		"REDIS_URL": testkit.RedisURL(t), "JWKS_URL": issuer.JWKSURL,
		"AUTH_URL": upstream.URL, "USER_URL": upstream.URL, "EMAIL_URL": upstream.URL, "AUDIT_URL": upstream.URL,
		"LOGIN_RATE_LIMIT": "2/15m",
	})
	if status, _ := p.Call("GET", "/api/v1/user/me", "", ""); status != 401 {
		t.Errorf("user/me without a token = %d, want 401", status)
	}
	status, data := p.Call("GET", "/api/v1/user/me", "", issuer.Token(token.Identity{}))
	if status != 200 || !strings.Contains(string(data), "/api/v1/user/me") {
		t.Errorf("user/me = %d %s", status, data)
	}
	for attempt, want := range []int{200, 200, 429} {
		if status, data := p.Call("POST", "/api/v1/auth/login", `{"email":"ann@example.com","password":"x"}`, ""); status != want {
			t.Errorf("login %d = %d %s, want %d", attempt+1, status, data, want)
		}
	}
	if metrics := p.Metrics(); !strings.Contains(metrics, `headgate_limiter_decisions_total{backend="redis",policy="login",result="denied"} 1`) {
		t.Error("the rejected login was not counted in Redis")
	}
	p.Stop()
}

func TestMissingConfiguration(t *testing.T) {
	t.Parallel()
	testkit.WantMissing(t, "REDIS_URL", "JWKS_URL", "AUTH_URL", "USER_URL", "EMAIL_URL", "AUDIT_URL")
}
