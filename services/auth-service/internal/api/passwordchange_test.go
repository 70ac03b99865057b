package api_test

import (
	"testing"

	"github.com/headgate/headgate/pkg/event"
)

func TestSEC14ChangePassword(t *testing.T) {
	t.Parallel()
	s := newService(t)
	here := s.signup("ann@example.com").Data.Tokens
	there := s.login("ann@example.com").Data.Tokens
	change := func(current, next string) answer {
		return s.call("POST", "/change-password", here.AccessToken, fields{"currentPassword": current, "newPassword": next})
	}
	s.want(change("not my password", otherPassword), 401, "current_password_invalid")
	s.want(change(goodPassword, "short"), 400, "validation_failed")
	s.want(change(goodPassword, "password"), 400, "weak_password")
	changed := s.want(change(goodPassword, otherPassword), 200, "").Data.Tokens
	// A thief may have the tokens of the current session as well (SEC-14).
	s.want(s.call("GET", "/sessions", here.AccessToken, nil), 401, "session_revoked")
	s.want(s.refresh(here.RefreshToken), 401, "session_revoked")
	s.want(s.call("GET", "/sessions", changed.AccessToken, nil), 200, "")
	s.want(s.refresh(changed.RefreshToken), 200, "")
	s.want(s.refresh(there.RefreshToken), 401, "session_revoked")
	s.want(s.call("GET", "/sessions", there.AccessToken, nil), 401, "session_revoked")
	s.want(s.call("POST", "/login", "", fields{"email": "ann@example.com", "password": otherPassword}), 200, "")
	for topic, want := range map[event.Topic]int{event.Audit: 1, event.Email: 1} {
		if got := s.count(topic, event.UserPasswordChanged{}); got != want {
			t.Errorf("%d events on %s, want %d", got, topic, want)
		}
	}
}
