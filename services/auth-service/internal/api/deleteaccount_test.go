package api_test

import (
	"slices"
	"testing"

	"github.com/headgate/headgate/pkg/event"
)

// SEC-14, SEC-70: nothing of a deleted account works any more, and an event tells every
// service to delete its data.
func TestSEC14And70DeletedAccount(t *testing.T) {
	t.Parallel()
	s := newService(t)
	root := s.admin()
	ann, bob := s.signup("ann@example.com").Data, s.signup("bob@example.com").Data
	s.want(s.call("DELETE", "/account", ann.Tokens.AccessToken, fields{"password": "not my password"}), 401, "current_password_invalid")
	s.want(s.call("DELETE", "/account", ann.Tokens.AccessToken, fields{}), 400, "validation_failed")
	s.want(s.call("DELETE", "/account", ann.Tokens.AccessToken, fields{"password": goodPassword}), 202, "")
	s.want(s.call("DELETE", "/users/"+bob.User.ID, root.AccessToken, nil), 202, "")
	for _, gone := range []tokens{ann.Tokens, bob.Tokens} {
		s.want(s.call("GET", "/sessions", gone.AccessToken, nil), 401, "session_revoked")
		s.want(s.refresh(gone.RefreshToken), 401, "session_revoked")
	}
	s.want(s.call("POST", "/login", "", fields{"email": "ann@example.com", "password": goodPassword}), 401, "invalid_credentials")
	s.want(s.call("GET", "/users/"+ann.User.ID, root.AccessToken, nil), 404, "account_not_found")
	for _, topic := range []event.Topic{event.Audit, event.User, event.Email} {
		var gone []string
		for _, e := range s.events(topic) {
			if e.Name == (event.UserDeleted{}).EventName() {
				gone = append(gone, e.Subject+" by "+e.Actor.ID)
			}
		}
		if want := []string{ann.User.ID + " by " + ann.User.ID, bob.User.ID + " by " + root.userID}; !slices.Equal(gone, want) {
			t.Errorf("%s: deleted %v, want %v", topic, gone, want)
		}
	}
	s.signup("ann@example.com") // The address is available again.
}
