package api_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/services/auth-service/internal/account"
)

// SEC-99, SEC-100: after a reset, a thief's network is no longer known, however the thief had
// used the account: guesses from there come to an end, and a sign-in is a new device. The
// network of the reset is known.
func TestSEC99And100AResetForgetsNetworks(t *testing.T) {
	t.Parallel()
	const most = 5
	s := newService(t, limited(account.Limits{ConsecutiveFailures: most}))
	eve, owner := s.at("203.0.113.5"), s.at("198.51.100.7")
	for email, use := range map[string]func(email string){
		"signed-up@example.com": func(email string) { eve.signup(email) },
		"signed-up-long-ago@example.com": func(email string) {
			eve.signup(email)
			s.advance(30 * time.Hour) // The session has expired, so the reset does not end it.
		},
		"refresh-token-stolen@example.com": func(email string) {
			eve.want(eve.refresh(owner.verified(email).Data.Tokens.RefreshToken), 200, "")
		},
		"link-used@example.com": func(email string) {
			owner.verified(email)
			eve.changeEmail(eve.login(email).Data.Tokens.AccessToken, "eves@example.com")
			revert := s.link(event.UserEmailRevertLinkIssued{}, email, 1)
			s.want(owner.call("POST", "/change-email/revert", "", fields{"token": revert}), 200, "")
		},
	} {
		t.Log(email)
		use(email)
		s.advance(time.Second)
		owner.forgot(email)
		s.wantServed()
		links := s.links(event.UserResetLinkIssued{}, email)
		reset := fields{"token": links[len(links)-1], "newPassword": otherPassword}
		s.want(owner.call("POST", "/reset-password", "", reset), 200, "")
		for range most {
			s.want(eve.try(email, "guess"), 401, "invalid_credentials")
		}
		s.want(eve.try(email, "guess"), 403, "password_reset_required")
		mails := s.count(event.Email, event.UserSignedInFromNewDevice{})
		s.want(owner.try(email, otherPassword), 200, "")
		s.wantCount(event.Email, event.UserSignedInFromNewDevice{}, mails) // The owner knows of the reset.
		s.want(eve.try(email, otherPassword), 200, "")
		s.want(eve.try(email, otherPassword), 200, "")
		s.wantCount(event.Email, event.UserSignedInFromNewDevice{}, mails+1)
	}
}

// SEC-99: from networks that were used before a reset, nobody uses up the mails for the owner.
func TestSEC99AResetForgetsNetworksForMails(t *testing.T) {
	t.Parallel()
	s := newService(t)
	owner := s.at("198.51.100.7")
	var eve []*service
	for i := range 4 {
		eve = append(eve, s.at(fmt.Sprintf("203.0.113.%d", i)))
	}
	eve[0].signup("ann@example.com")
	for _, e := range eve[1:] {
		e.login("ann@example.com")
	}
	s.advance(time.Second)
	owner.forgot("ann@example.com")
	reset := fields{"token": s.link(event.UserResetLinkIssued{}, "ann@example.com", 1), "newPassword": otherPassword}
	s.want(owner.call("POST", "/reset-password", "", reset), 200, "")
	for i := range 12 {
		eve[i%4].forgot("ann@example.com")
	}
	s.wantServed()
	sent := len(s.links(event.UserResetLinkIssued{}, "ann@example.com"))
	owner.forgot("ann@example.com")
	s.wantServed()
	if n := len(s.links(event.UserResetLinkIssued{}, "ann@example.com")); n != sent+1 {
		t.Errorf("%d mails after %d, want one more for the owner", n, sent)
	}
}
