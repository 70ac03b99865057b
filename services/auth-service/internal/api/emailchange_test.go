package api_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/services/auth-service/internal/account"
)

// A thief with the password and a session can change the address, but not keep the
// account: neither by a second change and its reversal, nor by a factor (SEC-36).
func TestSEC36ThiefOfAnAddress(t *testing.T) {
	t.Parallel()
	s := newService(t)
	s.verified("ann@example.com")
	thief := s.login("ann@example.com").Data.Tokens
	s.changeEmail(thief.AccessToken, "thief1@example.com")
	s.advance(time.Minute)
	s.changeEmail(thief.AccessToken, "thief2@example.com")
	s.enrol(thief.AccessToken)
	owners := s.link(event.UserEmailRevertLinkIssued{}, "ann@example.com", 1)
	thiefs := s.link(event.UserEmailRevertLinkIssued{}, "thief1@example.com", 1)
	s.want(s.call("POST", "/change-email/revert", "", fields{"token": thiefs}), 200, "")
	back := s.want(s.call("POST", "/change-email/revert", "", fields{"token": owners}), 200, "")
	if got := back.Data.User; got.Email != "ann@example.com" || got.MFAEnabled {
		t.Errorf("user = %+v, want the old address and no factor", got)
	}
	stolen := s.link(event.UserResetLinkIssued{}, "thief1@example.com", 1)
	s.want(s.call("POST", "/reset-password", "", fields{"token": stolen, "newPassword": otherPassword}), 400, "token_invalid")
	reset := s.link(event.UserResetLinkIssued{}, "ann@example.com", 1)
	s.want(s.call("POST", "/reset-password", "", fields{"token": reset, "newPassword": otherPassword}), 200, "")
	if got := s.want(s.try("ann@example.com", otherPassword), 200, "").Data; got.Tokens.AccessToken == "" {
		t.Errorf("login asks for the thief's factor: %+v", got)
	}
}

// The reader of an unverified address can revert a change only as long as they could have
// verified the address: it may have been mistyped.
func TestSEC36UnverifiedAddress(t *testing.T) {
	t.Parallel()
	s := newService(t)
	s.changeEmail(s.signup("mistyped@example.com").Data.Tokens.AccessToken, "ann@example.com")
	revert := s.link(event.UserEmailRevertLinkIssued{}, "mistyped@example.com", 1)
	s.advance(time.Hour + time.Second)
	s.want(s.call("POST", "/change-email/revert", "", fields{"token": revert}), 410, "token_expired")

	s.changeEmail(s.signup("owner@example.com").Data.Tokens.AccessToken, "thief@example.com")
	revert = s.link(event.UserEmailRevertLinkIssued{}, "owner@example.com", 1)
	s.want(s.call("POST", "/change-email/revert", "", fields{"token": revert}), 200, "")
}

// SEC-36: a change is confirmed at the new address, and the old one is notified.
func TestSEC36ChangeEmail(t *testing.T) {
	t.Parallel()
	s := newService(t)
	ann := s.verified("ann@example.com").Data
	s.signup("bob@example.com")
	change := func(bearer, to, current string) answer {
		return s.call("POST", "/change-email", bearer, fields{"newEmail": to, "currentPassword": current})
	}
	s.want(change(ann.Tokens.AccessToken, "new@example.com", "not my password"), 401, "current_password_invalid")
	s.want(change(ann.Tokens.AccessToken, "nonsense", goodPassword), 400, "validation_failed")
	s.want(change(ann.Tokens.AccessToken, "ANN@example.com", goodPassword), 400, "validation_failed")
	s.want(change(ann.Tokens.AccessToken, "bob@example.com", goodPassword), 409, "email_taken")
	s.want(change(ann.Tokens.AccessToken, "new@example.com", goodPassword), 202, "")
	s.login("ann@example.com") // The change is not confirmed yet.

	confirm := s.link(event.UserEmailChangeLinkIssued{}, "new@example.com", 1)
	if got := s.parallel("/change-email/confirm", fields{"token": confirm}); got["200 "] != 1 || got["400 token_invalid"] != 19 {
		t.Errorf("20 parallel uses = %v", got)
	}
	in := s.login("new@example.com").Data
	if in.User.ID != ann.User.ID || in.User.Email != "new@example.com" || !in.User.EmailVerified {
		t.Errorf("user = %+v", in.User)
	}
	s.want(s.call("POST", "/login", "", fields{"email": "ann@example.com", "password": goodPassword}), 401, "invalid_credentials")

	// A thief changes it again; the owner's first link still works.
	s.advance(time.Minute)
	revert := s.link(event.UserEmailRevertLinkIssued{}, "ann@example.com", 1)
	s.want(change(in.Tokens.AccessToken, "thief@example.com", goodPassword), 202, "")
	s.want(s.call("POST", "/change-email/confirm", "", fields{"token": s.link(event.UserEmailChangeLinkIssued{}, "thief@example.com", 1)}), 200, "")
	back := s.want(s.call("POST", "/change-email/revert", "", fields{"token": revert}), 200, "").Data.User
	if back.Email != "ann@example.com" {
		t.Errorf("user = %+v", back)
	}
	s.want(s.call("POST", "/change-email/revert", "", fields{"token": s.link(event.UserEmailRevertLinkIssued{}, "new@example.com", 1)}), 400, "token_invalid")
	s.want(s.refresh(in.Tokens.RefreshToken), 401, "session_revoked")
	s.want(s.call("POST", "/login", "", fields{"email": "ann@example.com", "password": goodPassword}), 401, "invalid_credentials")
	reset := s.link(event.UserResetLinkIssued{}, "ann@example.com", 1)
	s.want(s.call("POST", "/reset-password", "", fields{"token": reset, "newPassword": otherPassword}), 200, "")
	if got := s.count(event.User, event.UserEmailChanged{}); got != 3 {
		t.Errorf("%d changes, want 3", got)
	}
}

// If two accounts claim an address, the second confirmation is refused.
func TestNewAddressIsTakenBeforeConfirmation(t *testing.T) {
	t.Parallel()
	s := newService(t)
	ann := s.signup("ann@example.com").Data.Tokens
	s.want(s.call("POST", "/change-email", ann.AccessToken, fields{"newEmail": "new@example.com", "currentPassword": goodPassword}), 202, "")
	s.signup("new@example.com")
	confirm := s.link(event.UserEmailChangeLinkIssued{}, "new@example.com", 1)
	s.want(s.call("POST", "/change-email/confirm", "", fields{"token": confirm}), 409, "email_taken")
}

// SEC-98: the answers and mails of change-email are budgeted for the account and for the
// mailbox, and an exhausted budget does not reveal whether an address has an account.
func TestSEC98ChangeEmailBudget(t *testing.T) {
	t.Parallel()
	s := newService(t)
	s.verified("bob@example.com")
	ann := s.at("192.0.2.1")
	bearer := ann.signup("ann@example.com").Data.Tokens.AccessToken
	change := func(to string) answer {
		return ann.call("POST", "/change-email", bearer, fields{"newEmail": to, "currentPassword": goodPassword})
	}
	for i := range 2 {
		s.want(change("bob@example.com"), 409, "email_taken")
		s.want(change(fmt.Sprintf("free%d@example.com", i)), 202, "")
	}
	s.want(change("free2@example.com"), 202, "")
	for _, to := range []string{"bob@example.com", "free3@example.com"} {
		if got := s.want(change(to), 429, "too_many_mails").header.Get("Retry-After"); got != "3600" {
			t.Errorf("Retry-After = %s, want an hour", got)
		}
	}
	// Wrong passwords and missing proofs are refused before anything is revealed or charged.
	s.want(ann.call("POST", "/change-email", bearer, fields{"newEmail": "bob@example.com", "currentPassword": "wrong"}), 401, "current_password_invalid")
	s.wantCount(event.Email, event.UserEmailChangeLinkIssued{}, 3)
	s.advance(time.Hour + time.Second)
	bearer = ann.login("ann@example.com").Data.Tokens.AccessToken
	s.want(change("free3@example.com"), 202, "")
}

// SEC-98: tags, and the dots that a provider ignores, do not multiply the mails to a mailbox,
// and neither do several accounts.
func TestSEC98Mailbox(t *testing.T) {
	t.Parallel()
	s := newService(t)
	sent := 0
	for i, to := range []string{"vic.tim+a@gmail.com", "victim+b@googlemail.com", "v.i.c.t.i.m@gmail.com", "victim@gmail.com", "victim+c@gmail.com"} {
		bearer := s.signup(fmt.Sprintf("thief%d@example.com", i)).Data.Tokens.AccessToken
		if s.call("POST", "/change-email", bearer, fields{"newEmail": to, "currentPassword": goodPassword}).status == 202 {
			sent++
		}
	}
	if sent != 3 {
		t.Errorf("%d mails to one mailbox from a network, want 3", sent)
	}
}

// SEC-98: in strict mode the state of an earlier link does not reveal whether the address of
// a later change has an account.
func TestSEC98StrictChangeRevealsNoAccount(t *testing.T) {
	t.Parallel()
	s := newService(t)
	s.verified("taken@example.com")
	strict := s.instance(func(cfg *account.Config) { cfg.Mode = account.SignUpStrict })
	for _, probe := range []string{"taken@example.com", "free@example.com"} {
		bearer, own := s.verified(newEmail()).Data.Tokens.AccessToken, newEmail()
		change := func(to string) {
			strict.want(strict.call("POST", "/change-email", bearer, fields{"newEmail": to, "currentPassword": goodPassword}), 202, "")
		}
		change(own)
		earlier := s.link(event.UserEmailChangeLinkIssued{}, own, 1)
		change(probe)
		if status, _, _ := strict.do("GET", base+"/change-email/confirm?token="+earlier, "", "", ""); status != 400 {
			t.Errorf("after a change to %s the earlier link answers %d, want 400", probe, status)
		}
	}
}
