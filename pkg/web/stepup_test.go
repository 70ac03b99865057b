package web_test

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/headgate/headgate/pkg/testkit"
	"github.com/headgate/headgate/pkg/token"
	"github.com/headgate/headgate/pkg/web"
)

// SEC-92: roles that require a second factor are of no use without it, and privileged
// changes need recent authentication.
func TestSEC92StepUp(t *testing.T) {
	t.Parallel()
	issuer := testkit.NewIssuer(t)
	ok := func(w http.ResponseWriter, _ *http.Request) error { return web.OK(w, http.StatusOK, struct{}{}) }
	other := func(w http.ResponseWriter, r *http.Request) error {
		if err := web.Require(web.Caller(r), token.RoleAdmin); err != nil {
			return err
		}
		return ok(w, r)
	}
	server := httptest.NewServer(web.NewRouter([]web.Route{
		{Method: http.MethodGet, Path: "/own", Access: web.SignedIn, Handler: ok},
		{Method: http.MethodGet, Path: "/other", Access: web.SignedIn, Handler: other},
		{Method: http.MethodGet, Path: "/read", Access: web.AuditReaders, Handler: ok},
		{Method: http.MethodPost, Path: "/change", Access: web.AdminOnly.Recently(), Handler: ok},
	}, web.Options{
		Auth: issuer.Verifier(), Log: testkit.Log(t), Metrics: prometheus.NewRegistry(),
		StepUp: web.StepUp{ReauthWindow: time.Hour, RequireMFAFor: []string{token.RoleAdmin}},
	}))
	t.Cleanup(server.Close)
	const granted, forbidden, mfa, reauth = "200 ", "403 forbidden", "403 mfa_required", "401 reauth_required"
	old := time.Now().Add(-61 * time.Minute)
	for name, tc := range map[string]struct {
		caller                   token.Identity
		own, other, read, change string
	}{
		"user":                      {token.Identity{Role: token.RoleUser}, granted, forbidden, forbidden, forbidden},
		"user with two factors":     {token.Identity{Role: token.RoleUser, ACR: token.AAL2}, granted, forbidden, forbidden, forbidden},
		"auditor":                   {token.Identity{Role: token.RoleAuditor, AuthTime: old}, granted, forbidden, granted, forbidden},
		"admin with one factor":     {token.Identity{Role: token.RoleAdmin, ACR: token.AAL1}, granted, mfa, mfa, mfa},
		"admin of an older release": {token.Identity{Role: token.RoleAdmin}, granted, mfa, mfa, mfa},
		"admin with two factors":    {token.Identity{Role: token.RoleAdmin, ACR: token.AAL2}, granted, granted, granted, granted},
		"admin an hour later":       {token.Identity{Role: token.RoleAdmin, ACR: token.AAL2, AuthTime: old}, granted, granted, granted, reauth},
	} {
		e := &edge{Server: server, issuer: issuer}
		for path, want := range map[string]string{"GET /own": tc.own, "GET /other": tc.other, "GET /read": tc.read, "POST /change": tc.change} {
			method, target, _ := strings.Cut(path, " ")
			res, a := e.do(t, method, target, "", "Authorization", "Bearer "+issuer.Token(tc.caller))
			if got := res.Status[:3] + " " + a.Code; got != want {
				t.Errorf("%s: %s = %s, want %s", name, path, got, want)
			}
		}
	}
}

func TestStepUpConfiguration(t *testing.T) {
	t.Parallel()
	for _, wrong := range []web.StepUp{{}, {ReauthWindow: time.Minute, RequireMFAFor: []string{"king"}}, {ReauthWindow: time.Minute, RequireMFAFor: []string{token.RoleUser}}} {
		if wrong.Validate() == nil {
			t.Errorf("%+v is valid", wrong)
		}
	}
	if err := (web.StepUp{ReauthWindow: time.Minute, RequireMFAFor: []string{token.RoleAdmin, token.RoleAuditor}}).Validate(); err != nil {
		t.Error(err)
	}
}
