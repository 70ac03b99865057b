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
		testkit.Eventually(s.t, func() error {
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
