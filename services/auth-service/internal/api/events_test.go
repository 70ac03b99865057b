package api_test

import (
	"slices"
	"testing"
	"time"

	"github.com/headgate/headgate/pkg/event"
)

// SEC-79: a request that changes something, is refused, or reads another user's data
// records an event. Only malformed requests do not.
func TestSEC79EverythingIsRecorded(t *testing.T) {
	t.Parallel()
	s := newService(t)
	root := s.admin()
	ann := s.signup("ann@example.com").Data
	seen := len(s.events(event.Audit))
	step := func(what string, a answer, status int, want ...string) {
		t.Helper()
		s.want(a, status, a.Code)
		all := s.events(event.Audit)
		if got := names(all[seen:]); !slices.Equal(got, want) {
			t.Errorf("%s left %v, want %v", what, got, want)
		}
		for _, e := range all[seen:] {
			if e.RequestID == "" || e.IP == "" || e.OccurredAt.IsZero() || e.Actor.Type == "" {
				t.Errorf("%s: event without actor, time, origin or request id: %+v", what, e)
			}
			if status >= 400 && e.Outcome == event.Success {
				t.Errorf("%s: %s is a success", what, e.Name)
			}
		}
		seen = len(all)
	}
	token, password := fields{"token": "junk"}, fields{"password": goodPassword}
	step("sign-up with a taken address", s.call("POST", "/signup", "", fields{"email": "ann@example.com", "password": goodPassword, "name": "Ann"}), 409, "request.refused")
	step("sign-up with a weak password", s.call("POST", "/signup", "", fields{"email": "bob@example.com", "password": "password", "name": "Bob"}), 400, "request.refused")
	step("sign-up without a name", s.call("POST", "/signup", "", fields{"email": "bob@example.com", "password": goodPassword}), 400)
	step("login with a wrong password", s.try("ann@example.com", "guess"), 401, "user.login_failed")
	step("refresh with junk", s.refresh("junk"), 401, "request.refused")
	step("verification with junk", s.call("POST", "/verify-email", "", token), 400, "request.refused")
	step("reset with junk", s.call("POST", "/reset-password", "", fields{"token": "junk", "newPassword": otherPassword}), 400, "request.refused")
	step("change to a taken address", s.call("POST", "/change-email", root.AccessToken, fields{"newEmail": "ann@example.com", "currentPassword": goodPassword}), 409, "request.refused")
	step("confirmation with junk", s.call("POST", "/change-email/confirm", "", token), 400, "request.refused")
	step("revert with junk", s.call("POST", "/change-email/revert", "", token), 400, "request.refused")
	step("second factor with junk", s.challenge("junk", "000000"), 410, "request.refused")
	step("passkey login with junk", s.call("POST", "/passkeys/login/finish", "", fields{"passkeyToken": "junk", "credential": fields{}}), 410, "request.refused")
	step("deletion of the last administrator", s.call("DELETE", "/account", root.AccessToken, password), 409, "request.refused")
	step("own rights", s.call("PATCH", "/users/"+root.userID, root.AccessToken, fields{"role": "user"}), 403, "access.denied")
	step("users", s.call("GET", "/users?q=ann", root.AccessToken, nil), 200, "user.listed")
	step("users by a user", s.call("GET", "/users", ann.Tokens.AccessToken, nil), 403, "access.denied")
	step("a user", s.call("GET", "/users/"+ann.User.ID, root.AccessToken, nil), 200, "user.viewed")
	step("factors of who has none", s.call("POST", "/users/"+ann.User.ID+"/reset-mfa", root.AccessToken, nil), 200, "mfa.reset")
	step("sessions", s.call("POST", "/users/"+ann.User.ID+"/revoke-sessions", root.AccessToken, nil), 200, "session.revoked", "user.sessions_revoked")
	step("no sessions", s.call("POST", "/users/"+ann.User.ID+"/revoke-sessions", root.AccessToken, nil), 200, "user.sessions_revoked")
	step("refresh of an ended session", s.refresh(ann.Tokens.RefreshToken), 401, "request.refused")
	step("an ended session", s.call("GET", "/sessions", ann.Tokens.AccessToken, nil), 401)
	step("enrolment", s.call("POST", "/mfa/totp", root.AccessToken, nil), 201, "mfa.enrolment_begun")
	s.advance(time.Hour)
	root.tokens = s.refresh(root.RefreshToken).Data.Tokens
	seen = len(s.events(event.Audit))
	step("enrolment an hour after the login", s.call("POST", "/mfa/totp", root.AccessToken, nil), 401, "request.refused")
}
