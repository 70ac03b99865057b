package api_test

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/pkg/token"
	"github.com/headgate/headgate/pkg/web"
	"github.com/headgate/headgate/services/auth-service/internal/api"
)

// claims returns what an access token says.
func (s *service) claims(in tokens) token.Claims {
	s.t.Helper()
	var c token.Claims
	data, err := base64.RawURLEncoding.DecodeString(strings.Split(in.AccessToken, ".")[1])
	if err == nil {
		err = json.Unmarshal(data, &c)
	}
	if err != nil {
		s.t.Fatal(err)
	}
	return c
}

// SEC-92: a privileged change needs a recent sign-in or re-authentication of the session,
// with the second factor if the administrator has one.
func TestSEC92PrivilegedChangesNeedRecentAuthentication(t *testing.T) {
	t.Parallel()
	s := newService(t)
	root, ann := s.admin(), s.signup("ann@example.com").Data.User
	_, secret, _ := s.enrol(root.AccessToken)
	user := "/users/" + ann.ID
	changes := func(want int, code string) {
		t.Helper()
		s.want(s.call("PATCH", user, root.AccessToken, fields{"status": "active"}), want, code)
		s.want(s.call("POST", user+"/revoke-sessions", root.AccessToken, nil), want, code)
		s.want(s.call("POST", user+"/reset-mfa", root.AccessToken, nil), want, code)
	}
	changes(200, "")
	s.advance(15 * time.Minute)
	root.tokens = s.want(s.refresh(root.RefreshToken), 200, "").Data.Tokens
	changes(401, "reauth_required")
	s.want(s.call("DELETE", user, root.AccessToken, nil), 401, "reauth_required")
	s.want(s.call("GET", user, root.AccessToken, nil), 200, "")
	s.want(s.call("POST", "/reauthenticate", root.AccessToken, fields{"password": goodPassword}), 400, "validation_failed")
	changes(401, "reauth_required")
	s.prove(root.AccessToken, fields{"password": goodPassword, "code": s.code(secret)})
	changes(401, "reauth_required") // The token still says when the session began.
	root.tokens = s.want(s.refresh(root.RefreshToken), 200, "").Data.Tokens
	changes(200, "")
	s.want(s.call("DELETE", user, root.AccessToken, nil), 202, "")
}

// SEC-92: every route of an administrator that changes something needs it.
func TestSEC92EveryPrivilegedChangeNeedsIt(t *testing.T) {
	t.Parallel()
	s := newService(t)
	root := s.admin()
	s.advance(16 * time.Minute)
	root.tokens = s.want(s.refresh(root.RefreshToken), 200, "").Data.Tokens
	for _, route := range api.Routes(s.accounts, nil, api.Site{}) {
		name := route.Method + " " + strings.TrimPrefix(route.Path, base)
		if mayCall[name] != admins || route.Method == http.MethodGet || route.Path == event.RateLimitsPath+"/read" {
			continue
		}
		status, _, body := s.do(route.Method, strings.ReplaceAll(route.Path, "{id}", root.userID), root.AccessToken, "application/json", "{}")
		if status != http.StatusUnauthorized || !strings.Contains(string(body), web.ErrReauthRequired.Code) {
			t.Errorf("%s = %d %s, want reauth_required", name, status, body)
		}
	}
}

func TestSEC92NobodyResetsTheirOwnFactors(t *testing.T) {
	t.Parallel()
	s := newService(t)
	root := s.admin()
	s.enrol(root.AccessToken)
	s.want(s.call("POST", "/users/"+root.userID+"/reset-mfa", root.AccessToken, nil), 403, "own_factors")
	s.want(s.call("POST", "/users/"+root.userID+"/reset-mfa", s.admin().AccessToken, nil), 200, "")
}

// SEC-93: access tokens say how and when their session was authenticated, also after it was
// refreshed.
func TestSEC93AuthenticationClaims(t *testing.T) {
	t.Parallel()
	s := newService(t)
	want := func(in tokens, level, methods string, at time.Time) {
		t.Helper()
		c := s.claims(in)
		if got := fmt.Sprint(c.AMR); c.ACR != level || got != methods || !c.AuthTime.Equal(at.Truncate(time.Second)) || c.IssuedAt.Before(c.AuthTime.Time) {
			t.Errorf("claims = %s %s, authenticated at %v, issued at %v, want %s %s at %v", c.ACR, got, c.AuthTime, c.IssuedAt, level, methods, at)
		}
	}
	in := s.signup("ann@example.com").Data
	ann := in.Tokens
	begun := s.time()
	want(ann, token.AAL1, "[pwd]", begun)
	s.advance(time.Minute)
	ann = s.want(s.refresh(ann.RefreshToken), 200, "").Data.Tokens
	want(ann, token.AAL1, "[pwd]", begun)
	s.prove(ann.AccessToken, fields{"password": goodPassword})
	ann = s.want(s.refresh(ann.RefreshToken), 200, "").Data.Tokens
	want(ann, token.AAL1, "[pwd]", s.time())

	key := s.addPasskey(in.User, ann.AccessToken)
	login := s.want(s.call("POST", "/passkeys/login", "", nil), 200, "").Data
	want(s.want(s.finishPasskeyLogin(login.PasskeyToken, key.Login(login.Options)), 200, "").Data.Tokens, token.AAL2, "[pop user mfa]", s.time())

	_, secret, _ := s.enrol(ann.AccessToken)
	enrolled := s.want(s.refresh(ann.RefreshToken), 200, "").Data.Tokens
	want(enrolled, token.AAL2, "[pwd otp mfa]", begun.Add(time.Minute))
	waiting := s.login("ann@example.com").Data
	want(s.want(s.challenge(waiting.MFAToken, s.code(secret)), 200, "").Data.Tokens, token.AAL2, "[pwd otp mfa]", s.time())
}

// SEC-93: an access token has an address only if the person of its session has proved it.
func TestSEC93NoUnprovedAddress(t *testing.T) {
	t.Parallel()
	s := newService(t)
	eve := s.signup("victim@example.com").Data.Tokens
	if c := s.claims(eve); c.Email != "" || c.EmailVerified {
		t.Errorf("claims = %+v of an address that nobody has proved", c)
	}
	var own token.Account
	_, _, body := s.do("GET", token.AccountPath, eve.AccessToken, "", "")
	if err := json.Unmarshal(body, &struct{ Data any }{&own}); err != nil || own.Email != "victim@example.com" || own.Name != "Ann" {
		t.Errorf("account = %s, %v", body, err)
	}
	s.signup("ann@example.com")
	s.forgot("ann@example.com")
	s.want(s.call("POST", "/reset-password", "", fields{"token": s.link(event.UserResetLinkIssued{}, "ann@example.com", 1), "newPassword": goodPassword}), 200, "")
	if c := s.claims(s.login("ann@example.com").Data.Tokens); c.Email != "ann@example.com" || !c.EmailVerified {
		t.Errorf("claims = %+v of a proved address", c)
	}
}

// SEC-95: whoever began the other sessions may not have the new second factor.
func TestSEC95SecondFactorEndsSessionsWithoutIt(t *testing.T) {
	t.Parallel()
	s := newService(t)
	in := s.signup("ann@example.com").Data
	ann, other := in.Tokens, s.login("ann@example.com").Data.Tokens
	key := s.addPasskey(in.User, ann.AccessToken)
	login := s.want(s.call("POST", "/passkeys/login", "", nil), 200, "").Data
	strong := s.want(s.finishPasskeyLogin(login.PasskeyToken, key.Login(login.Options)), 200, "").Data.Tokens
	s.enrol(ann.AccessToken)
	s.want(s.refresh(other.RefreshToken), 401, "session_revoked")
	s.want(s.call("GET", "/sessions", other.AccessToken, nil), 401, "session_revoked")
	s.want(s.refresh(ann.RefreshToken), 200, "")
	s.want(s.refresh(strong.RefreshToken), 200, "")
}
