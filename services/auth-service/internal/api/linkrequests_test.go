package api_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/services/auth-service/internal/account"
)

// An account with a stranger's address cannot fill the stranger's mailbox (SEC-34).
func TestSEC34NoticesToAStranger(t *testing.T) {
	t.Parallel()
	s := newService(t)
	victim := s.signup("victim@example.com").Data.Tokens
	passwords := []string{goodPassword, otherPassword}
	for i := range 8 {
		change := fields{"currentPassword": passwords[i%2], "newPassword": passwords[1-i%2]}
		victim = s.want(s.call("POST", "/change-password", victim.AccessToken, change), 200, "").Data.Tokens
	}
	if mails := s.count(event.Email, event.UserPasswordChanged{}); mails != 3 {
		t.Errorf("%d notices, want 3", mails)
	}
	s.wantCount(event.Audit, event.UserPasswordChanged{}, 8)
	for range 5 {
		s.want(s.call("DELETE", "/account", victim.AccessToken, fields{"password": goodPassword}), 202, "")
		victim = s.signup("victim@example.com").Data.Tokens
	}
	if mails := s.count(event.Email, event.UserVerificationRequested{}); mails != 3 {
		t.Errorf("%d verification mails, want 3", mails)
	}
	s.wantCount(event.Audit, event.UserSignedUp{}, 6)
}

// Strangers cannot use up the mails of an owner who requests them from a known network.
func TestSEC34MailsAreLeftForTheOwner(t *testing.T) {
	t.Parallel()
	s := newService(t)
	home, away := s.at("192.0.2.1"), s.at("198.51.100.1")
	home.signup("ann@example.com")
	for range 5 {
		away.forgot("ann@example.com")
	}
	s.wantCount(event.Email, event.UserResetLinkIssued{}, 3)
	home.forgot("ann@example.com")
	s.wantCount(event.Email, event.UserResetLinkIssued{}, 4)
}

// SEC-28: an address without an account gets the same answer, and no mail.
func TestSEC28UnknownAddress(t *testing.T) {
	t.Parallel()
	s := newService(t)
	s.signup("ann@example.com")
	for _, path := range []string{"/forgot-password", "/resend-verification"} {
		status, _, known := s.do("POST", base+path, "", "application/json", `{"email":"ann@example.com"}`)
		other, _, unknown := s.do("POST", base+path, "", "application/json", `{"email":"eve@example.com"}`)
		if status != 202 || other != 202 || string(known) != string(unknown) {
			t.Errorf("%s = %d %s for an account, %d %s for none", path, status, known, other, unknown)
		}
		s.want(s.call("POST", path, "", fields{"email": "nonsense"}), 400, "validation_failed")
	}
	s.wantCount(event.Audit, event.UserPasswordResetRequested{}, 2)
	s.wantCount(event.Email, event.UserVerificationRequested{}, 2)
	for _, kind := range []event.Payload{event.UserResetLinkIssued{}, event.UserVerificationRequested{}} {
		if got := s.links(kind, "eve@example.com"); len(got) != 0 {
			t.Errorf("%d mails to an unknown address", len(got))
		}
	}
}

// SEC-34: an address gets 3 mails an hour and 10 a day.
func TestSEC34MailBombing(t *testing.T) {
	t.Parallel()
	s := newService(t)
	s.signup("ann@example.com")
	mails := func() int {
		return len(s.links(event.UserResetLinkIssued{}, "ann@example.com")) + len(s.links(event.UserVerificationRequested{}, "ann@example.com")) - 1
	}
	served := 0
	ask := func(n int) {
		t.Helper()
		for range n {
			path := []string{"/forgot-password", "/resend-verification"}[served%2]
			s.want(s.call("POST", path, "", fields{"email": "ann@example.com"}), 202, "")
			served++
			s.wantServed()
		}
	}
	ask(6)
	if got := mails(); got != 3 {
		t.Errorf("%d mails in an hour, want 3", got)
	}
	for range 5 {
		s.advance(time.Hour + time.Minute)
		ask(4)
	}
	if got := mails(); got != 10 {
		t.Errorf("%d mails in a day, want 10", got)
	}
	s.wantCount(event.Audit, event.UserMailCapped{}, served-10)
	s.advance(25 * time.Hour)
	ask(1)
	if got := mails(); got != 11 {
		t.Errorf("%d mails on the next day, want 11", got)
	}
}

func TestResendVerification(t *testing.T) {
	t.Parallel()
	s := newService(t)
	first := s.verifyLink("ann@example.com")
	s.want(s.call("POST", "/resend-verification", "", fields{"email": "ann@example.com"}), 202, "")
	s.link(event.UserVerificationRequested{}, "ann@example.com", 2)
	s.want(s.call("POST", "/verify-email", "", fields{"token": first}), 400, "token_invalid")
	s.verify("ann@example.com", 2, goodPassword)
	s.want(s.call("POST", "/resend-verification", "", fields{"email": "ann@example.com"}), 202, "")
	s.wantServed()
	if got := s.links(event.UserVerificationRequested{}, "ann@example.com"); len(got) != 2 {
		t.Errorf("%d mails, want none to a verified address", len(got)-2)
	}
}

// SEC-98: one network cannot use up the mails of an owner, wherever the owner is, and many
// networks together cannot flood a mailbox.
func TestSEC98MailsPerNetwork(t *testing.T) {
	t.Parallel()
	s := newService(t)
	s.at("192.0.2.1").signup("ann@example.com")
	for range 5 {
		s.at("198.51.100.1").forgot("ann@example.com")
	}
	s.wantServed()
	s.wantCount(event.Email, event.UserResetLinkIssued{}, 3)
	s.at("203.0.113.7").forgot("ann@example.com") // the owner on a journey
	s.wantServed()
	s.wantCount(event.Email, event.UserResetLinkIssued{}, 4)
	for i := range 20 {
		s.at(fmt.Sprintf("198.51.100.%d", i+2)).forgot("ann@example.com")
	}
	s.wantServed()
	s.wantCount(event.Email, event.UserResetLinkIssued{}, 9) // The mail of the sign-up counts, too.
	s.at("192.0.2.1").forgot("ann@example.com")
	s.wantServed()
	s.wantCount(event.Email, event.UserResetLinkIssued{}, 10)
}

// SEC-98: a network has a budget of mails and of answers that reveal who has an account.
func TestSEC98NetworkBudget(t *testing.T) {
	t.Parallel()
	s := newService(t, limited(account.Limits{MailsPerNetwork: 6}))
	away := s.at("198.51.100.1")
	up := func(email string) answer {
		return away.call("POST", "/signup", "", fields{"email": email, "password": goodPassword, "name": "Ann"})
	}
	s.want(up("ann@example.com"), 201, "") // an answer and a mail
	s.want(up("ann@example.com"), 409, "email_taken")
	s.want(up("ann@example.com"), 409, "email_taken")
	away.forgot("ann@example.com")
	s.wantServed()
	s.want(up("bob@example.com"), 201, "")
	for _, email := range []string{"ann@example.com", "eve@example.com"} {
		s.want(up(email), 429, "rate_limited")
	}
	away.forgot("ann@example.com") // The answer to a stranger stays the same.
	s.wantServed()
	s.wantCount(event.Email, event.UserResetLinkIssued{}, 1)
	s.want(s.at("203.0.113.7").call("POST", "/signup", "", fields{"email": "ann@example.com", "password": goodPassword, "name": "Ann"}), 409, "email_taken")
	s.advance(time.Hour + time.Second)
	s.want(up("eve@example.com"), 201, "")
}
