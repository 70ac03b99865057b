package api_test

import (
	"slices"
	"testing"

	"github.com/headgate/headgate/pkg/event"
)

func TestSEC13Logout(t *testing.T) {
	t.Parallel()
	s := newService(t)
	first := s.signup("ann@example.com").Data.Tokens
	second := s.call("POST", "/login", "", fields{"email": "ann@example.com", "password": goodPassword}).Data.Tokens
	stranger := s.signup("eve@example.com").Data.Tokens

	s.want(s.call("POST", "/logout", "", nil), 401, "unauthenticated")
	s.want(s.call("POST", "/logout", first.AccessToken, fields{"refreshToken": stranger.RefreshToken}), 401, "refresh_token_invalid")
	s.want(s.refresh(stranger.RefreshToken), 200, "")
	for range 2 { // Logout is idempotent.
		s.want(s.call("POST", "/logout", first.AccessToken, fields{"refreshToken": second.RefreshToken}), 200, "")
	}
	s.want(s.refresh(first.RefreshToken), 401, "session_revoked")
	s.want(s.refresh(second.RefreshToken), 401, "session_revoked")
	if got := names(s.events(event.User)); !slices.Equal(got, []string{"user.signed_up", "user.logged_in", "user.signed_up", "user.logged_out", "user.logged_out"}) {
		t.Errorf("user events = %v", got)
	}
}
