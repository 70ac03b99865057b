package api_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/headgate/headgate/pkg/event"
)

// SEC-94: the owner learns of new recovery codes and of a sign-in with one. Enrolment sends
// one mail, not two.
func TestSEC94RecoveryCodeNotices(t *testing.T) {
	t.Parallel()
	s := newService(t)
	s.verified("ann@example.com")
	ann := s.login("ann@example.com").Data.Tokens
	_, _, recovery := s.enrol(ann.AccessToken)
	s.wantCount(event.Email, event.MFAEnrolled{}, 1)
	s.wantCount(event.Email, event.MFARecoveryCodesMade{}, 0)
	s.wantCount(event.Audit, event.MFARecoveryCodesMade{}, 1)
	s.want(s.challenge(s.login("ann@example.com").Data.MFAToken, recovery[0]), 200, "")
	s.wantCount(event.Email, event.MFARecoveryCodeUsed{}, 1)
	proof := s.prove(ann.AccessToken, fields{"password": goodPassword, "code": recovery[1]})
	s.want(s.call("POST", "/mfa/recovery-codes", ann.AccessToken, fields{"proof": proof}), 200, "")
	s.wantCount(event.Email, event.MFARecoveryCodesMade{}, 1)
}

// SEC-94: a sign-in from a network or with a program that the account was never used from
// is mailed, by whatever method; the first one, a known one and an update are not.
func TestSEC94NewDevice(t *testing.T) {
	t.Parallel()
	s := newService(t)
	home := s.at("198.51.100.1").with("User-Agent", "Browser/140.0 (Linux)")
	in := home.verified("ann@example.com").Data
	key := home.addPasskey(in.User, in.Tokens.AccessToken)
	n := 0
	login := func(from *service, isNew bool) tokens {
		t.Helper()
		a := from.login("ann@example.com").Data.Tokens
		if isNew {
			n++
		}
		s.wantCount(event.Email, event.UserSignedInFromNewDevice{}, n)
		return a
	}
	out := login(home, false)
	s.want(s.call("POST", "/logout", out.AccessToken, nil), 200, "")
	login(home.with("User-Agent", "Browser/141.2 (Linux)"), false)
	login(home.with("User-Agent", "Browser/141.2 (Windows)"), true)
	login(home.with("User-Agent", "Browser/141.2 (Windows)"), false)
	login(s.at("203.0.113.9").with("User-Agent", "Browser/140.0 (Linux)"), true)
	login(home, false)
	away := s.at("192.0.2.77").with("User-Agent", "Browser/140.0 (Linux)")
	begun := away.want(away.call("POST", "/passkeys/login", "", nil), 200, "").Data
	away.want(away.finishPasskeyLogin(begun.PasskeyToken, key.Login(begun.Options)), 200, "")
	s.wantCount(event.Email, event.UserSignedInFromNewDevice{}, n+1)

	// A stranger's mailbox is left alone.
	home.signup("eve@example.com")
	s.at("203.0.113.9").login("eve@example.com")
	s.wantCount(event.Email, event.UserSignedInFromNewDevice{}, n+1)
}

// SEC-94: the owner learns that somebody knows the password who should not.
func TestSEC94Guessing(t *testing.T) {
	t.Parallel()
	s := newService(t)
	s.verified("ann@example.com")
	thief := s.at("203.0.113.9")
	for range 9 {
		thief.try("ann@example.com", "guess")
	}
	thief.want(thief.try("ann@example.com", goodPassword), 200, "")
	s.wantCount(event.Email, event.UserGuessed{}, 0)
	other := s.at("203.0.113.10")
	for range 12 {
		other.want(other.try("ann@example.com", "guess"), 401, "invalid_credentials")
		s.advance(16 * time.Minute)
	}
	other.want(other.try("ann@example.com", goodPassword), 200, "")
	s.wantCount(event.Email, event.UserGuessed{}, 1)

	s.enrol(s.login("ann@example.com").Data.Tokens.AccessToken)
	in := s.login("ann@example.com").Data
	for range 5 {
		s.want(s.challenge(in.MFAToken, "000000"), 401, "mfa_code_invalid")
	}
	var got []string
	for _, e := range s.events(event.Email) {
		if p, err := event.Decode[event.UserGuessed](e); err == nil {
			got = append(got, p.Method)
		}
	}
	if fmt.Sprint(got) != "[password code]" {
		t.Errorf("notices = %v, want one about the password and one about codes", got)
	}
}

func TestSEC94RoleAndStatusNotices(t *testing.T) {
	t.Parallel()
	s := newService(t)
	ann := s.verified("ann@example.com").Data.User
	root := s.admin()
	for _, change := range []fields{{"role": "auditor"}, {"status": "disabled"}, {"status": "active"}} {
		s.want(s.call("PATCH", "/users/"+ann.ID, root.AccessToken, change), 200, "")
	}
	for _, kind := range []event.Payload{event.UserRoleChanged{}, event.UserDisabled{}, event.UserEnabled{}} {
		s.wantCount(event.Email, kind, 1)
	}
}

// SEC-96: an account with a proved passkey can do without a password; it never ends up
// without a way in, and a login does not tell.
func TestSEC96PasswordOff(t *testing.T) {
	t.Parallel()
	s := newService(t)
	in := s.signup("ann@example.com").Data
	s.want(s.call("DELETE", "/password", in.Tokens.AccessToken, nil), 401, "reauth_required")
	unproved, _ := s.newPasskey(in.User.ID, in.Tokens.AccessToken, fields{"password": goodPassword})
	s.want(s.call("DELETE", "/password", in.Tokens.AccessToken, fields{"password": goodPassword}), 409, "passkey_required")
	s.want(s.call("DELETE", "/passkeys/"+unproved, in.Tokens.AccessToken, fields{"password": goodPassword}), 200, "")

	s.forgot("ann@example.com")
	reset := s.link(event.UserResetLinkIssued{}, "ann@example.com", 1)
	s.want(s.call("POST", "/reset-password", "", fields{"token": reset, "newPassword": goodPassword}), 200, "")
	ann := s.login("ann@example.com").Data.Tokens
	s.want(s.call("DELETE", "/password", ann.AccessToken, fields{"password": goodPassword}), 409, "passkey_required")
	id, key := s.newPasskey(in.User.ID, ann.AccessToken, fields{"password": goodPassword})
	s.want(s.call("DELETE", "/password", ann.AccessToken, fields{"password": goodPassword}), 200, "")
	s.wantCount(event.Email, event.UserPasswordRemoved{}, 1)
	for _, tried := range []string{goodPassword, otherPassword} {
		s.want(s.try("ann@example.com", tried), 401, "invalid_credentials")
	}
	prove := func() string {
		key.Counter++
		begun := s.want(s.call("POST", "/reauthenticate/passkey", ann.AccessToken, nil), 200, "").Data
		finish := fields{"passkeyToken": begun.PasskeyToken, "credential": key.Login(begun.Options)}
		return s.want(s.call("POST", "/reauthenticate/passkey/finish", ann.AccessToken, finish), 200, "").Data.Proof
	}
	s.want(s.call("DELETE", "/passkeys/"+id, ann.AccessToken, fields{"proof": prove()}), 409, "last_passkey")
	other, _ := s.newPasskey(in.User.ID, ann.AccessToken, fields{"proof": prove()})
	s.want(s.call("DELETE", "/passkeys/"+other, ann.AccessToken, fields{"proof": prove()}), 200, "")

	s.forgot("ann@example.com")
	back := s.link(event.UserResetLinkIssued{}, "ann@example.com", 2)
	s.want(s.call("POST", "/reset-password", "", fields{"token": back, "newPassword": otherPassword, "removePasskeys": false}), 200, "")
	ann = s.want(s.try("ann@example.com", otherPassword), 200, "").Data.Tokens
	s.want(s.call("DELETE", "/passkeys/"+id, ann.AccessToken, fields{"password": otherPassword}), 200, "")
}
