package api_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/pkg/testkit"
	"github.com/headgate/headgate/services/auth-service/internal/account"
)

// passkey adds a passkey to an account, proved or not, as if it had been added at a time.
func (s *service) passkey(accountID string, proved bool, at time.Time) {
	s.t.Helper()
	const query = `
		INSERT INTO factors (id, account_id, kind, name, secret, lookup, last_step, proved, created_at, confirmed_at)
		VALUES ($1::uuid, $2, 'passkey', 'Passkey', '{}', $1::text::bytea, 0, $3, $4, $4)`
	if _, err := s.db.Exec(s.t.Context(), query, uuid.NewString(), accountID, proved, at); err != nil {
		s.t.Fatal(err)
	}
}

// proved returns whether the password, the live sessions and the factors of an account are
// proved, in this order.
func (s *service) proved(accountID string) string {
	s.t.Helper()
	const query = `
		SELECT 'password ' || password_proved
			|| COALESCE((SELECT ', sessions ' || string_agg(proved::text, ' ' ORDER BY id) FROM sessions WHERE account_id = a.id AND revoked_at IS NULL AND expires_at > $2), '')
			|| COALESCE((SELECT ', factors ' || string_agg(proved::text, ' ' ORDER BY id) FROM factors WHERE account_id = a.id), '')
		FROM accounts a
		WHERE id = $1`
	var found string
	if err := s.db.QueryRow(s.t.Context(), query, accountID, s.time()).Scan(&found); err != nil {
		s.t.Fatal(err)
	}
	return found
}

func (s *service) wantProved(accountID, want string) {
	s.t.Helper()
	if got := s.proved(accountID); got != want {
		s.t.Errorf("proved: %s, want %s", got, want)
	}
}

// wantGone wants that no account has an address, and that its events are those of a
// deletion.
func (s *service) wantGone(accountID, reason string) {
	s.t.Helper()
	for _, topic := range []event.Topic{event.Audit, event.User, event.Email} {
		testkit.Eventually(s.t, 10*time.Second, func() error {
			for _, e := range s.events(topic) {
				if d, err := event.Decode[event.UserDeleted](e); err == nil && e.Name == d.EventName() && e.Subject == accountID && d.Reason == reason {
					return nil
				}
			}
			return fmt.Errorf("no deletion of %s on %s, %q", accountID, topic, reason)
		})
	}
}

// A person who only reads the mail does not prove the credentials of another, who signed
// up with the address.
func TestSEC85AClickAloneProvesNobody(t *testing.T) {
	t.Parallel()
	s := newService(t)
	stranger := s.signup("victim@example.com").Data
	ended := s.login("victim@example.com").Data.Tokens.AccessToken
	s.want(s.call("POST", "/logout", ended, nil), 200, "")
	s.enrol(stranger.Tokens.AccessToken)
	s.passkey(stranger.User.ID, false, s.time())
	link := s.link(event.UserVerificationRequested{}, "victim@example.com", 1)
	other := s.signup("other@example.com").Data.Tokens.AccessToken
	for _, bearer := range []string{"", other, ended, "nonsense"} {
		s.want(s.call("POST", "/verify-email", bearer, fields{"token": link}), 403, "proof_required")
	}
	s.want(s.call("POST", "/verify-email", other, fields{"token": link, "password": otherPassword}), 401, "current_password_invalid")

	// The reader of the mail takes the account over: nothing of the stranger is left.
	s.want(s.call("POST", "/verify-email/take-over", "", fields{"token": link, "newPassword": "short"}), 400, "validation_failed")
	taken := s.want(s.call("POST", "/verify-email/take-over", "", fields{"token": link, "newPassword": otherPassword}), 200, "").Data.User
	if !taken.EmailVerified || taken.MFAEnabled || taken.ID != stranger.User.ID {
		t.Errorf("user = %+v", taken)
	}
	s.wantProved(taken.ID, "password true")
	s.want(s.refresh(stranger.Tokens.RefreshToken), 401, "session_revoked")
	s.want(s.try("victim@example.com", goodPassword), 401, "invalid_credentials")
	if in := s.want(s.try("victim@example.com", otherPassword), 200, "").Data; in.Tokens.AccessToken == "" {
		t.Errorf("login = %+v, want no second factor", in)
	}
	s.wantProved(taken.ID, "password true, sessions true")
	s.wantCount(event.Email, event.UserPasswordChanged{}, 1)
	var codes int
	if err := s.db.QueryRow(t.Context(), `SELECT count(*) FROM recovery_codes`).Scan(&codes); err != nil || codes != 0 {
		t.Errorf("%d recovery codes are left, %v", codes, err)
	}
	s.want(s.call("POST", "/verify-email/take-over", "", fields{"token": link, "newPassword": otherPassword}), 400, "token_invalid")
}

// With the session or the password of the account, everything that it has is proved.
func TestSEC85VerificationWithAProof(t *testing.T) {
	t.Parallel()
	s := newService(t)
	for name, use := range map[string]func(link, bearer string) answer{
		"session": func(link, bearer string) answer {
			return s.call("POST", "/verify-email", bearer, fields{"token": link})
		},
		"password": func(link, _ string) answer {
			return s.call("POST", "/verify-email", "", fields{"token": link, "password": goodPassword})
		},
	} {
		email := name + "@example.com"
		ann := s.signup(email).Data
		s.enrol(ann.Tokens.AccessToken)
		s.wantProved(ann.User.ID, "password false, sessions false, factors false")
		s.want(use(s.link(event.UserVerificationRequested{}, email, 1), ann.Tokens.AccessToken), 200, "")
		s.wantProved(ann.User.ID, "password true, sessions true, factors true")
		s.want(s.call("GET", "/sessions", ann.Tokens.AccessToken, nil), 200, "")

		// A proved second factor stays when the password is reset.
		s.forgot(email)
		s.want(s.call("POST", "/reset-password", "", fields{"token": s.link(event.UserResetLinkIssued{}, email, 1), "newPassword": otherPassword}), 200, "")
		s.wantProved(ann.User.ID, "password true, factors true")
	}
}

// Guesses at the password with a verification link count like guesses at a login.
func TestSEC85GuessesWithALinkAreCounted(t *testing.T) {
	t.Parallel()
	s := newService(t)
	link := s.verifyLink("ann@example.com")
	away := s.at("198.51.100.9")
	for range 10 {
		s.want(away.call("POST", "/verify-email", "", fields{"token": link, "password": otherPassword}), 401, "current_password_invalid")
	}
	s.want(away.call("POST", "/verify-email", "", fields{"token": link, "password": goodPassword}), 429, "rate_limited")
	s.want(away.try("ann@example.com", goodPassword), 429, "rate_limited")
	if n := s.occurrences(event.UserLoginFailed{}); n != 12 {
		t.Errorf("%d failures are recorded, want 12", n)
	}
	s.advance(time.Minute)
	s.want(away.call("POST", "/verify-email", "", fields{"token": link, "password": goodPassword}), 200, "")
}

// A person who did not sign up frees the address.
func TestSEC85RejectedSignUp(t *testing.T) {
	t.Parallel()
	s := newService(t)
	stranger := s.signup("victim@example.com").Data
	link := s.link(event.UserVerificationRequested{}, "victim@example.com", 1)
	s.want(s.call("POST", "/verify-email/reject", "", fields{"token": link}), 200, "")
	s.wantGone(stranger.User.ID, "rejected")
	s.want(s.call("GET", "/sessions", stranger.Tokens.AccessToken, nil), 401, "session_revoked")
	s.want(s.call("POST", "/verify-email/reject", "", fields{"token": link}), 400, "token_invalid")
	own := s.signup("victim@example.com").Data
	second := s.link(event.UserVerificationRequested{}, "victim@example.com", 2)

	// An account that an administrator decided about is not deleted by a link, and neither
	// is one whose address was verified before.
	root := s.admin()
	for _, change := range []fields{{"status": "disabled"}, {"status": "active", "role": "auditor"}} {
		s.want(s.call("PATCH", "/users/"+own.User.ID, root.AccessToken, change), 200, "")
		s.want(s.call("POST", "/verify-email/reject", "", fields{"token": second}), 400, "token_invalid")
	}
	s.want(s.call("PATCH", "/users/"+own.User.ID, root.AccessToken, fields{"role": "user"}), 200, "")
	if _, err := s.db.Exec(t.Context(), `UPDATE accounts SET email_verified = true WHERE id = $1`, own.User.ID); err != nil {
		t.Fatal(err)
	}
	s.want(s.call("POST", "/verify-email/reject", "", fields{"token": second}), 400, "token_invalid")
	s.want(s.call("POST", "/verify-email/take-over", "", fields{"token": second, "newPassword": otherPassword}), 400, "token_invalid")
}

// If the link alone verifies an address, credentials stay unproved, and so does what their
// sessions add. The next proof by mail removes them, however old they are.
func TestSEC86ProofByMailRemovesUnprovedCredentials(t *testing.T) {
	t.Parallel()
	s := newService(t, func(cfg *account.Config) { cfg.Verification = account.VerifyByLink })
	stranger := s.signup("victim@example.com").Data
	id, link := stranger.User.ID, s.link(event.UserVerificationRequested{}, "victim@example.com", 1)
	s.enrol(stranger.Tokens.AccessToken)
	s.passkey(id, false, s.time())
	s.want(s.call("POST", "/verify-email", "", fields{"token": link}), 200, "")
	s.wantProved(id, "password false, sessions false, factors false false")
	change := fields{"currentPassword": goodPassword, "newPassword": otherPassword}
	s.want(s.call("POST", "/change-password", stranger.Tokens.AccessToken, change), 200, "")
	s.wantProved(id, "password false, sessions false, factors false false")
	s.advance(60 * 24 * time.Hour)
	s.forgot("victim@example.com")
	reset := fields{"token": s.link(event.UserResetLinkIssued{}, "victim@example.com", 1), "newPassword": "a third battery"}
	s.want(s.call("POST", "/reset-password", "", reset), 200, "")
	s.wantProved(id, "password true")

	// A session or the password proves them in this mode, too.
	ann := s.signup("ann@example.com").Data
	s.verify("ann@example.com", 1, goodPassword)
	s.wantProved(ann.User.ID, "password true, sessions true")
	s.enrol(ann.Tokens.AccessToken)
	s.wantProved(ann.User.ID, "password true, sessions true, factors true")
}

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

// In strict mode the newest sign-up of an unverified address counts, so a person who signs
// up after another can verify the address with a password of their own.
func TestSEC87StrictSignUpReplacesThePendingOne(t *testing.T) {
	t.Parallel()
	s := newService(t, func(cfg *account.Config) { cfg.Mode = account.SignUpStrict })
	signup := func(password, name string) string {
		t.Helper()
		s.want(s.call("POST", "/signup", "", fields{"email": "victim@example.com", "password": password, "name": name}), 202, "")
		s.wantServed()
		var id string
		if err := s.db.QueryRow(t.Context(), `SELECT id::text FROM accounts WHERE email_key = 'victim@example.com'`).Scan(&id); err != nil {
			t.Fatal(err)
		}
		return id
	}
	stranger := signup(otherPassword, "Eve")
	first := s.link(event.UserVerificationRequested{}, "victim@example.com", 1)
	victim := signup(goodPassword, "Vic")
	s.wantGone(stranger, "replaced")
	s.want(s.call("POST", "/verify-email", "", fields{"token": first, "password": otherPassword}), 400, "token_invalid")
	s.verify("victim@example.com", 2, goodPassword)
	s.want(s.try("victim@example.com", otherPassword), 401, "invalid_credentials")
	if in := s.login("victim@example.com").Data.User; in.ID != victim || in.Name != "Vic" {
		t.Errorf("user = %+v", in)
	}
	signup(otherPassword, "Eve") // The account is verified, so it stays.
	s.login("victim@example.com")
}

// Neither the sign-up of a stranger nor a purge deletes an account that a person has used,
// or that an operator has created.
func TestSEC87UsedAccountsStay(t *testing.T) {
	t.Parallel()
	var before account.Config
	s := newService(t, func(cfg *account.Config) {
		before = *cfg // The operator changes these later.
		cfg.Mode, cfg.Lifetimes.Unverified = account.SignUpStrict, 7*24*time.Hour
	})
	joined := s.time().Add(-365 * 24 * time.Hour)
	in := account.SignUp{Email: "used@example.com", Password: goodPassword, Name: "Ann"}
	if _, _, err := account.New(before).Register(t.Context(), in, ""); err != nil {
		t.Fatal(err)
	}
	if _, err := s.accounts.Import(t.Context(), []account.Imported{{Email: "old@example.com", Name: "Bob", CreatedAt: joined}}); err != nil {
		t.Fatal(err)
	}
	for _, email := range []string{"used@example.com", "old@example.com"} {
		s.want(s.call("POST", "/signup", "", fields{"email": email, "password": otherPassword, "name": "Eve"}), 202, "")
	}
	s.wantServed()
	s.advance(30 * 24 * time.Hour)
	if err := s.accounts.PurgeUnverified(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := s.count(event.User, event.UserDeleted{}); n != 0 {
		t.Errorf("%d accounts were deleted, want none", n)
	}
}

// Unverified accounts that cannot sign in are deleted after a while, as their owners could.
func TestSEC87UnverifiedAccountsArePurged(t *testing.T) {
	t.Parallel()
	s := newService(t, func(cfg *account.Config) {
		cfg.RequireVerified, cfg.Lifetimes.Unverified = true, 7*24*time.Hour
	})
	gone := s.signup("gone@example.com").Data.User.ID
	s.verified("kept@example.com")
	s.advance(6 * 24 * time.Hour)
	s.signup("new@example.com")
	admin := s.admin()
	for email, change := range map[string]fields{"disabled@example.com": {"status": "disabled"}, "auditor@example.com": {"role": "auditor"}} {
		s.want(s.call("PATCH", "/users/"+s.signup(email).Data.User.ID, admin.AccessToken, change), 200, "")
	}
	purge := func(want int) {
		t.Helper()
		if err := s.accounts.PurgeUnverified(t.Context()); err != nil {
			t.Fatal(err)
		}
		if n := s.count(event.User, event.UserDeleted{}); n != want {
			t.Errorf("%d accounts were deleted, want %d", n, want)
		}
	}
	purge(0)
	s.advance(25 * time.Hour)
	purge(1)
	s.wantGone(gone, "unverified")
	s.signup("gone@example.com") // The address is free.
	s.advance(8 * 24 * time.Hour)
	purge(3)
}

// The page of a verification link offers its three choices, without scripts.
func TestSEC85VerificationPage(t *testing.T) {
	t.Parallel()
	s := newService(t)
	link := s.verifyLink("ann@example.com")
	s.open("/verify-email", link).form(200, "This is my account: choose a new password", "This was not me",
		`action="/api/v1/auth/verify-email"`, `action="/api/v1/auth/verify-email/take-over"`, `action="/api/v1/auth/verify-email/reject"`, `autocomplete="current-password"`)
	s.press("/verify-email", link).form(403, "Enter the password of the account", link)
	s.press("/verify-email", link, "password", otherPassword).form(401, "Incorrect current password.", link)
	again := s.press("/verify-email/take-over", link, "password", "short").form(400, "at least 8 characters", link)
	if !strings.Contains(again.body, "<details open>") || strings.Count(again.body, `role="alert"`) != 1 {
		t.Errorf("the choice with the error is closed:\n%s", again.body)
	}
	s.press("/verify-email/take-over", link, "password", otherPassword).message(200, "Password changed")
	s.press("/verify-email/reject", link).message(400, invalid)
	s.want(s.try("ann@example.com", otherPassword), 200, "")

	second := s.verifyLink("bob@example.com")
	s.press("/verify-email/reject", second).message(200, "Account deleted")
	s.press("/verify-email", second, "password", goodPassword).message(400, invalid)
	s.verifyLink("bob@example.com")
}
