package api_test

import (
	"testing"
	"time"

	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/services/auth-service/internal/account"
)

// A person who only clicks a link to change the address of an account proves nothing for
// it: the address may be that person's, and the account another's.
func TestSEC86ConfirmedAddress(t *testing.T) {
	t.Parallel()
	s := newService(t)
	for name, tc := range map[string]struct {
		bearer, password bool
		proved           string
	}{
		"click":    {proved: "password false, sessions false, factors false"},
		"session":  {bearer: true, proved: "password true, sessions true, factors true"},
		"password": {password: true, proved: "password true, sessions true, factors true"},
	} {
		owner, victim := name+"@example.com", "victim-"+name+"@example.com"
		ann := s.verified(owner).Data
		s.enrol(ann.Tokens.AccessToken)
		s.want(s.call("POST", "/change-email", ann.Tokens.AccessToken, fields{"newEmail": victim, "currentPassword": goodPassword}), 202, "")
		in, bearer := fields{"token": s.link(event.UserEmailChangeLinkIssued{}, victim, 1)}, ""
		if tc.password {
			s.want(s.call("POST", "/change-email/confirm", "", fields{"token": in["token"], "password": otherPassword}), 401, "current_password_invalid")
			in["password"] = goodPassword
		}
		if tc.bearer {
			bearer = ann.Tokens.AccessToken
		}
		s.want(s.call("POST", "/change-email/confirm", bearer, in), 200, "")
		s.wantProved(ann.User.ID, tc.proved)
		s.forgot(victim)
		s.want(s.call("POST", "/reset-password", "", fields{"token": s.link(event.UserResetLinkIssued{}, victim, 1), "newPassword": otherPassword}), 200, "")
		left := s.want(s.try(victim, otherPassword), 200, "").Data
		if asked := left.MFAToken != ""; asked == (name == "click") {
			t.Errorf("%s: login = %+v", name, left)
		}
	}
}

// A click from a network in which an account has no session does not put the account behind
// the address of the person who clicked, who could share it with another from then on.
func TestSEC86AClickFromAnotherNetworkIsNotEnough(t *testing.T) {
	t.Parallel()
	s := newService(t)
	eve, victim := s.at("2001:db8:1:2::1"), s.at("198.51.100.7")
	in := eve.verified("eve@example.com").Data
	eve.want(eve.call("POST", "/change-email", in.Tokens.AccessToken, fields{"newEmail": "victim@example.com", "currentPassword": goodPassword}), 202, "")
	link := s.link(event.UserEmailChangeLinkIssued{}, "victim@example.com", 1)
	confirm := func(from *service, bearer string, with fields) answer {
		with["token"] = link
		return from.call("POST", "/change-email/confirm", bearer, with)
	}
	other := victim.signup("other@example.com").Data.Tokens.AccessToken
	for _, bearer := range []string{"", other, "nonsense"} {
		s.want(confirm(victim, bearer, fields{}), 403, "proof_required")
	}
	s.want(confirm(victim, other, fields{"password": otherPassword}), 401, "current_password_invalid")
	victim.press("/change-email/confirm", link).form(403, "Enter the password of the account", link, `autocomplete="current-password" required`)
	s.signup("victim@example.com") // The address is free.

	for name, use := range map[string]func(from *service, in tokens, link string) answer{
		"network": func(_ *service, _ tokens, link string) answer {
			return s.at("2001:db8:1:2::99").call("POST", "/change-email/confirm", "", fields{"token": link})
		},
		"session": func(from *service, in tokens, link string) answer {
			return from.call("POST", "/change-email/confirm", in.AccessToken, fields{"token": link})
		},
		"password": func(from *service, _ tokens, link string) answer {
			return from.call("POST", "/change-email/confirm", "", fields{"token": link, "password": goodPassword})
		},
		"setting": func(from *service, _ tokens, link string) answer {
			bare := s.instance(func(cfg *account.Config) { cfg.Verification = account.VerifyByLink }).at("198.51.100.7")
			return bare.call("POST", "/change-email/confirm", "", fields{"token": link})
		},
	} {
		in := eve.verified(name + "@example.com").Data.Tokens
		to := "new-" + name + "@example.com"
		eve.want(eve.call("POST", "/change-email", in.AccessToken, fields{"newEmail": to, "currentPassword": goodPassword}), 202, "")
		if a := use(victim, in, s.link(event.UserEmailChangeLinkIssued{}, to, 1)); a.status != 200 || a.Data.User.Email != to {
			t.Errorf("%s: %d %s, address %s, want 200, %s", name, a.status, a.Code, a.Data.User.Email, to)
		}
	}
}

// The reader of an address that nobody has proved, which may be mistyped, cannot take the
// account from the person who has proved another one since.
func TestSEC86AMistypedAddressHasNoClaim(t *testing.T) {
	t.Parallel()
	s := newService(t)
	home, stranger := s.at("2001:db8:1:2::1"), s.at("198.51.100.7")
	changed := func(name string, in tokens) (link string) {
		to := "new-" + name + "@example.com"
		home.want(home.call("POST", "/change-email", in.AccessToken, fields{"newEmail": to, "currentPassword": goodPassword}), 202, "")
		confirmed := fields{"token": s.link(event.UserEmailChangeLinkIssued{}, to, 1)}
		home.want(home.call("POST", "/change-email/confirm", in.AccessToken, confirmed), 200, "")
		return s.link(event.UserEmailRevertLinkIssued{}, name+"@example.com", 1)
	}
	revert := func(from *service, link string, with fields) answer {
		with["token"] = link
		return from.call("POST", "/change-email/revert", "", with)
	}
	link := changed("typo", home.signup("typo@example.com").Data.Tokens)
	s.want(revert(stranger, link, fields{}), 403, "proof_required")
	s.want(revert(stranger, link, fields{"password": otherPassword}), 401, "current_password_invalid")
	stranger.press("/change-email/revert", link).form(403, "Enter the password of the account", link, `autocomplete="current-password" required`)
	if a := home.want(home.login("new-typo@example.com"), 200, ""); a.Data.User.Email != "new-typo@example.com" {
		t.Errorf("the account has the address %s", a.Data.User.Email)
	}
	if a := revert(stranger, link, fields{"password": goodPassword}); a.status != 200 || a.Data.User.Email != "typo@example.com" {
		t.Errorf("with the password = %d %s, %s", a.status, a.Code, a.Data.User.Email)
	}
	link = changed("own", home.signup("own@example.com").Data.Tokens)
	s.want(revert(home, link, fields{}), 200, "")
	link = changed("proved", home.verified("proved@example.com").Data.Tokens)
	s.want(revert(stranger, link, fields{}), 200, "")
}

// A session that has ended or expired makes no click plausible.
func TestSEC86AClickAfterTheSession(t *testing.T) {
	t.Parallel()
	s := newService(t, func(cfg *account.Config) { cfg.Lifetimes.RefreshIdle = 30 * time.Minute })
	for name, end := range map[string]func(in tokens){
		"ended":   func(in tokens) { s.want(s.call("POST", "/logout-all", in.AccessToken, nil), 200, "") },
		"expired": func(tokens) { s.advance(31 * time.Minute) },
	} {
		in := s.verified(name + "@example.com").Data.Tokens
		to := "new-" + name + "@example.com"
		s.want(s.call("POST", "/change-email", in.AccessToken, fields{"newEmail": to, "currentPassword": goodPassword}), 202, "")
		end(in)
		link := s.link(event.UserEmailChangeLinkIssued{}, to, 1)
		s.want(s.call("POST", "/change-email/confirm", "", fields{"token": link}), 403, "proof_required")
		s.want(s.call("POST", "/change-email/confirm", "", fields{"token": link, "password": goodPassword}), 200, "")
	}
}

// An unproved passkey does not survive that a change of the address is reverted, however
// old it is; a proved one from before the change does.
func TestSEC86RevertRemovesUnprovedFactors(t *testing.T) {
	t.Parallel()
	s := newService(t)
	ann := s.verified("ann@example.com").Data
	old := s.time().Add(-90 * 24 * time.Hour)
	s.changeEmail(ann.Tokens.AccessToken, "thief@example.com")
	s.passkey(ann.User.ID, true, old)
	s.passkey(ann.User.ID, false, old)
	revert := s.link(event.UserEmailRevertLinkIssued{}, "ann@example.com", 1)
	s.want(s.call("POST", "/change-email/revert", "", fields{"token": revert}), 200, "")
	s.wantProved(ann.User.ID, "password false, factors true")
}
