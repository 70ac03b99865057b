package api_test

import (
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/google/uuid"

	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/pkg/token"
	"github.com/headgate/headgate/pkg/web"
	"github.com/headgate/headgate/services/auth-service/internal/api"
)

// Who may call a route. Written down here a second time on purpose.
const (
	anyone   = "anyone"
	signedIn = "signed in"
	admins   = "admins"
)

var mayCall = map[string]string{
	"POST /signup":                                         anyone,
	"POST /login":                                          anyone,
	"POST /refresh":                                        anyone,
	"GET /verify-email":                                    anyone,
	"POST /verify-email":                                   anyone,
	"POST /verify-email/take-over":                         anyone,
	"POST /verify-email/reject":                            anyone,
	"POST /resend-verification":                            anyone,
	"POST /forgot-password":                                anyone,
	"GET /reset-password":                                  anyone,
	"POST /reset-password":                                 anyone,
	"GET /change-email/confirm":                            anyone,
	"POST /change-email/confirm":                           anyone,
	"GET /change-email/revert":                             anyone,
	"POST /change-email/revert":                            anyone,
	"POST /change-password":                                signedIn,
	"DELETE /password":                                     signedIn,
	"POST /change-email":                                   signedIn,
	"POST /mfa/challenge":                                  anyone,
	"POST /reauthenticate":                                 signedIn,
	"POST /reauthenticate/mail":                            signedIn,
	"POST /reauthenticate/passkey":                         signedIn,
	"POST /reauthenticate/passkey/finish":                  signedIn,
	"GET /mfa/factors":                                     signedIn,
	"POST /mfa/totp":                                       signedIn,
	"POST /mfa/totp/{id}/verify":                           signedIn,
	"DELETE /mfa/totp/{id}":                                signedIn,
	"POST /mfa/recovery-codes":                             signedIn,
	"POST /users/{id}/reset-mfa":                           admins,
	"POST /passkeys":                                       signedIn,
	"POST /passkeys/finish":                                signedIn,
	"PATCH /passkeys/{id}":                                 signedIn,
	"DELETE /passkeys/{id}":                                signedIn,
	"POST /passkeys/login":                                 anyone,
	"POST /passkeys/login/finish":                          anyone,
	"GET " + token.RevocationsPath:                         anyone,
	"GET " + token.AccountPath:                             signedIn,
	"GET " + web.ExportPath:                                signedIn,
	"POST " + web.ExportLinkPath:                           signedIn,
	"POST " + event.RateLimitsPath + "/exceeded":           anyone,
	"POST " + event.RateLimitsPath + "/exceeded-by-caller": signedIn,
	"POST " + event.RateLimitsPath + "/read":               admins,
	"POST " + event.RateLimitsPath + "/cleared":            admins,
	"GET /.well-known/jwks.json":                           anyone,
	"GET /.well-known/openid-configuration":                anyone,
	"GET /.well-known/webauthn":                            anyone,
	"POST /logout":                                         signedIn,
	"POST /logout-all":                                     signedIn,
	"GET /sessions":                                        signedIn,
	"DELETE /sessions/{id}":                                signedIn,
	"DELETE /account":                                      signedIn,
	"GET /users":                                           admins,
	"GET /users/{id}":                                      admins,
	"PATCH /users/{id}":                                    admins,
	"DELETE /users/{id}":                                   admins,
	"POST /users/{id}/revoke-sessions":                     admins,
	"POST /revoke-all-sessions":                            admins,
}

// SEC-51: every route, called by every kind of caller.
func TestSEC51Access(t *testing.T) {
	t.Parallel()
	s := newService(t)
	routes := api.Routes(s.accounts, nil, api.Site{})
	if len(routes) != len(mayCall) {
		t.Errorf("%d routes, %d in mayCall", len(routes), len(mayCall))
	}
	for _, route := range routes {
		name := route.Method + " " + strings.TrimPrefix(route.Path, base)
		allowed, known := mayCall[name]
		if !known {
			t.Errorf("mayCall has no entry for %s", name)
		}
		for caller, bearer := range s.callers() {
			path := strings.ReplaceAll(route.Path, "{id}", uuid.NewString())
			input := "{}"
			if name == "POST /revoke-all-sessions" {
				input = `{"before":"2026-01-01T00:00:00Z"}` // Later callers stay signed in.
			}
			status, _, body := s.do(route.Method, path, bearer, "application/json", input)
			want := admission(route, allowed, caller)
			got := status
			if got != http.StatusUnauthorized && got != http.StatusForbidden || slices.ContainsFunc(asksForMore, func(code string) bool { return strings.Contains(string(body), code) }) {
				got = http.StatusOK
			}
			if got != want {
				t.Errorf("%s by %s = %d %s, want %d", name, caller, status, body, want)
			}
		}
	}
}

// asksForMore are the codes of refusals of callers who may call the route.
var asksForMore = []string{`"reauth_required"`, `"email_not_verified"`}

// admission returns 401, 403, or 200 if the caller is admitted.
func admission(route web.Route, allowed, caller string) int {
	switch {
	case allowed == anyone:
		return http.StatusOK
	case caller == "anonymous":
		return http.StatusUnauthorized
	case strings.Contains(caller, "old token") && route.Path == base+"/logout":
		return http.StatusOK // Logout is idempotent.
	case strings.Contains(caller, "old token"):
		return http.StatusUnauthorized
	case allowed == admins && caller != token.RoleAdmin:
		return http.StatusForbidden
	}
	return http.StatusOK
}

// callers returns a new access token for every kind of caller.
func (s *service) callers() map[string]string {
	s.t.Helper()
	root := s.admin()
	callers := map[string]string{"anonymous": "", token.RoleAdmin: s.admin().AccessToken}
	someone := s.signup(newEmail()).Data
	callers[token.RoleUser] = someone.Tokens.AccessToken
	auditor := newEmail()
	id := s.signup(auditor).Data.User.ID
	s.want(s.call("PATCH", "/users/"+id, root.AccessToken, fields{"role": "auditor"}), 200, "")
	callers[token.RoleAuditor] = s.login(auditor).Data.Tokens.AccessToken
	for name, change := range map[string]fields{
		"disabled admin with an old token": {"status": "disabled"},
		"demoted admin with an old token":  {"role": "user"},
	} {
		old := s.admin()
		s.want(s.call("PATCH", "/users/"+old.userID, root.AccessToken, change), 200, "")
		callers[name] = old.AccessToken
	}
	return callers
}

// SEC-79: a denial records the caller and the route.
func TestSEC79DenialsAreRecorded(t *testing.T) {
	t.Parallel()
	s := newService(t)
	someone := s.signup(newEmail()).Data
	s.want(s.call("GET", "/users", someone.Tokens.AccessToken, nil), 403, "forbidden")
	root := s.admin()
	s.want(s.call("PATCH", "/users/"+root.userID, root.AccessToken, fields{"role": "user"}), 403, "self_demotion")
	type denial struct{ actor, route string }
	got := map[denial]int{}
	for _, e := range s.events(event.Audit) {
		if e.Name != (event.AccessDenied{}).EventName() {
			continue
		}
		p, err := event.Decode[event.AccessDenied](e)
		if err != nil {
			t.Fatal(err)
		}
		if e.Outcome != event.Denied || e.RequestID == "" || e.IP == "" {
			t.Errorf("event = %+v", e)
		}
		got[denial{e.Actor.ID, p.Method + " " + p.Route}]++
	}
	for _, want := range []denial{{someone.User.ID, "GET " + base + "/users"}, {root.userID, "PATCH " + base + "/users/{id}"}} {
		if got[want] != 1 {
			t.Errorf("%+v was recorded %d times in %v", want, got[want], got)
		}
	}
}
