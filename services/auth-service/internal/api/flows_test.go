package api_test

import (
	"fmt"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/pkg/testkit"
	"github.com/headgate/headgate/services/auth-service/internal/account"
)

const otherPassword = "quite another battery"

func (s *service) forgot(email string) {
	s.t.Helper()
	s.want(s.call("POST", "/forgot-password", "", fields{"email": email}), 202, "")
}

// count returns how many events of the kind there are on a topic.
func (s *service) count(topic event.Topic, kind event.Payload) int {
	s.t.Helper()
	n := 0
	for _, e := range s.events(topic) {
		if e.Name == kind.EventName() {
			n++
		}
	}
	return n
}

func (s *service) wantCount(topic event.Topic, kind event.Payload, n int) {
	s.t.Helper()
	testkit.Eventually(s.t, 10*time.Second, func() error {
		if got := s.count(topic, kind); got != n {
			return fmt.Errorf("%d events %s on %s, want %d", got, kind.EventName(), topic, n)
		}
		return nil
	})
}

// parallel makes the same call 20 times at once and counts the answers.
func (s *service) parallel(path string, body fields) map[string]int {
	s.t.Helper()
	answers := make(chan answer, 20)
	var wg sync.WaitGroup
	for range cap(answers) {
		wg.Go(func() { answers <- s.call("POST", path, "", body) })
	}
	wg.Wait()
	close(answers)
	count := map[string]int{}
	for a := range answers {
		count[fmt.Sprintf("%d %s", a.status, a.Code)]++
	}
	return count
}

// TestSEC29And30ResetPassword is SEC-29 and SEC-30.
func TestSEC29And30ResetPassword(t *testing.T) {
	t.Parallel()
	s := newService(t)
	ann := s.signup("ann@example.com").Data
	s.forgot(" ANN@Example.com ")
	first := s.link(event.UserResetLinkIssued{}, "ann@example.com", 1)
	s.forgot("ann@example.com")
	second := s.link(event.UserResetLinkIssued{}, "ann@example.com", 2)

	reset := func(link, password string) answer {
		return s.call("POST", "/reset-password", "", fields{"token": link, "newPassword": password})
	}
	s.want(reset(first, otherPassword), 400, "token_invalid") // Superseded.
	s.want(reset("nonsense", otherPassword), 400, "token_invalid")
	s.want(reset("", otherPassword), 400, "validation_failed")
	s.want(reset(second, "short"), 400, "validation_failed")
	s.want(reset(second, "ann@example.com"), 400, "weak_password")
	s.want(s.call("POST", "/verify-email", "", fields{"token": second}), 400, "token_invalid") // It is for one purpose.
	if got := s.parallel("/reset-password", fields{"token": second, "newPassword": otherPassword}); got["200 "] != 1 || got["400 token_invalid"] != 19 {
		t.Errorf("20 parallel uses = %v", got)
	}

	s.want(s.refresh(ann.Tokens.RefreshToken), 401, "session_revoked")
	s.want(s.call("GET", "/sessions", ann.Tokens.AccessToken, nil), 401, "session_revoked")
	s.want(s.call("POST", "/login", "", fields{"email": "ann@example.com", "password": goodPassword}), 401, "invalid_credentials")
	in := s.want(s.call("POST", "/login", "", fields{"email": "ann@example.com", "password": otherPassword}), 200, "")
	if !in.Data.User.EmailVerified {
		t.Error("whoever read the mail has not proved to own the address")
	}
	if got := s.count(event.Email, event.UserPasswordChanged{}); got != 1 {
		t.Errorf("%d notices, want 1", got)
	}

	s.forgot("ann@example.com")
	late := s.link(event.UserResetLinkIssued{}, "ann@example.com", 3)
	s.advance(31 * time.Minute)
	s.want(reset(late, goodPassword), 410, "token_expired")
}

// TestSEC28NobodyHasTheAddress is SEC-28: the answer is the same, and nothing is mailed.
func TestSEC28NobodyHasTheAddress(t *testing.T) {
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
			t.Errorf("%d mails to nobody", len(got))
		}
	}
}

// TestSEC34MailBombing is SEC-34.
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

// wantServed waits until no request is left.
func (s *service) wantServed() {
	s.t.Helper()
	testkit.Eventually(s.t, 10*time.Second, func() error {
		var left int
		if err := s.db.QueryRow(s.t.Context(), `SELECT count(*) FROM mail_requests`).Scan(&left); err != nil || left > 0 {
			return fmt.Errorf("%d requests left, %w", left, err)
		}
		return nil
	})
}

func TestResendVerification(t *testing.T) {
	t.Parallel()
	s := newService(t)
	first := s.verifyLink("ann@example.com")
	s.want(s.call("POST", "/resend-verification", "", fields{"email": "ann@example.com"}), 202, "")
	second := s.link(event.UserVerificationRequested{}, "ann@example.com", 2)
	s.want(s.call("POST", "/verify-email", "", fields{"token": first}), 400, "token_invalid")
	s.want(s.call("POST", "/verify-email", "", fields{"token": second}), 200, "")
	s.want(s.call("POST", "/resend-verification", "", fields{"email": "ann@example.com"}), 202, "")
	s.wantServed()
	if got := s.links(event.UserVerificationRequested{}, "ann@example.com"); len(got) != 2 {
		t.Errorf("%d mails, want none to a verified address", len(got)-2)
	}
}

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
	// A thief may have the tokens of this session, too (SEC-14).
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

// TestSEC36ChangeEmail is SEC-36: confirmed on the new address, told to the old.
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
	s.login("ann@example.com") // Nothing has changed yet.

	confirm := s.link(event.UserEmailChangeLinkIssued{}, "new@example.com", 1)
	if got := s.parallel("/change-email/confirm", fields{"token": confirm}); got["200 "] != 1 || got["400 token_invalid"] != 19 {
		t.Errorf("20 parallel uses = %v", got)
	}
	in := s.login("new@example.com").Data
	if in.User.ID != ann.User.ID || in.User.Email != "new@example.com" || !in.User.EmailVerified {
		t.Errorf("user = %+v", in.User)
	}
	s.want(s.call("POST", "/login", "", fields{"email": "ann@example.com", "password": goodPassword}), 401, "invalid_credentials")

	// A thief changes it once more; the owner's first link still works.
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

// Two accounts want one address; the link that comes second is refused.
func TestAddressIsTakenMeanwhile(t *testing.T) {
	t.Parallel()
	s := newService(t)
	ann := s.signup("ann@example.com").Data.Tokens
	s.want(s.call("POST", "/change-email", ann.AccessToken, fields{"newEmail": "new@example.com", "currentPassword": goodPassword}), 202, "")
	s.signup("new@example.com")
	confirm := s.link(event.UserEmailChangeLinkIssued{}, "new@example.com", 1)
	s.want(s.call("POST", "/change-email/confirm", "", fields{"token": confirm}), 409, "email_taken")
}

// TestSEC27StrictSignUp is SEC-27: only the owner of an address learns whether it has
// an account.
func TestSEC27StrictSignUp(t *testing.T) {
	t.Parallel()
	s := newService(t, func(cfg *account.Config) { cfg.Mode = account.SignUpStrict })
	in := fields{"email": "ann@example.com", "password": goodPassword, "name": "Ann"}
	if got := s.parallel("/signup", in); got["202 "] != 20 {
		t.Fatalf("answers = %v", got)
	}
	s.wantServed()
	if signedUp, repeated := s.count(event.User, event.UserSignedUp{}), s.count(event.Email, event.UserSignUpRepeated{}); signedUp != 1 || repeated != 3 {
		t.Errorf("%d accounts, %d notices, want 1 and as many as an address may get", signedUp, repeated)
	}
	s.want(s.call("POST", "/signup", "", fields{"email": "bob@example.com", "password": "short", "name": "Bob"}), 400, "validation_failed")
	s.want(s.call("POST", "/verify-email", "", fields{"token": s.link(event.UserVerificationRequested{}, "ann@example.com", 1)}), 200, "")
	tokens := s.login("ann@example.com").Data.Tokens
	// An address that is taken looks like one that is not.
	s.want(s.call("POST", "/signup", "", fields{"email": "eve@example.com", "password": goodPassword, "name": "Eve"}), 202, "")
	s.wantServed()
	s.want(s.call("POST", "/change-email", tokens.AccessToken, fields{"newEmail": "eve@example.com", "currentPassword": goodPassword}), 202, "")
	if got := s.links(event.UserEmailChangeLinkIssued{}, "eve@example.com"); len(got) != 0 {
		t.Error("somebody else's address got a link that takes it")
	}
}

func TestClosedSignUp(t *testing.T) {
	t.Parallel()
	s := newService(t, func(cfg *account.Config) { cfg.Mode = account.SignUpClosed })
	s.want(s.call("POST", "/signup", "", fields{"email": "ann@example.com", "password": goodPassword, "name": "Ann"}), 403, "signup_closed")
	s.admin() // Administrators can be made all the same.
}

func TestVerifiedEmailIsRequired(t *testing.T) {
	t.Parallel()
	s := newService(t, func(cfg *account.Config) { cfg.RequireVerified = true })
	if in := s.signup("ann@example.com").Data; in.Tokens.AccessToken != "" || in.User.ID == "" {
		t.Errorf("sign-up = %+v, want no tokens", in)
	}
	in := fields{"email": "ann@example.com", "password": goodPassword}
	s.want(s.call("POST", "/login", "", in), 403, "email_not_verified")
	s.want(s.call("POST", "/login", "", fields{"email": "ann@example.com", "password": otherPassword}), 401, "invalid_credentials")
	s.want(s.call("POST", "/verify-email", "", fields{"token": s.link(event.UserVerificationRequested{}, "ann@example.com", 1)}), 200, "")
	s.want(s.call("POST", "/login", "", in), 200, "")
}

// TestLandingPages uses the forms as a browser without scripts does.
func TestLandingPages(t *testing.T) {
	t.Parallel()
	s := newService(t)
	ann := s.signup("ann@example.com").Data.Tokens
	s.forgot("ann@example.com")
	link := s.link(event.UserResetLinkIssued{}, "ann@example.com", 1)
	s.want(s.call("POST", "/change-email", ann.AccessToken, fields{"newEmail": "new@example.com", "currentPassword": goodPassword}), 202, "")
	confirm := s.link(event.UserEmailChangeLinkIssued{}, "new@example.com", 1)
	for path, secret := range map[string]string{"/reset-password": link, "/change-email/confirm": confirm} {
		for range 2 { // GET consumes nothing.
			status, header, page := s.do("GET", base+path+"?token="+url.QueryEscape(secret), "", "", "")
			if status != 200 || !strings.Contains(string(page), `action="`+base+path+`"`) || !strings.Contains(header.Get("Content-Security-Policy"), "default-src 'none'") {
				t.Fatalf("GET %s = %d %v %s", path, status, header, page)
			}
		}
		if status, _, _ := s.do("GET", base+path, "", "", ""); status != 400 {
			t.Errorf("GET %s without a token = %d", path, status)
		}
	}
	form := func(path string, values url.Values) (int, string) {
		status, _, page := s.do("POST", base+path, "", "application/x-www-form-urlencoded", values.Encode())
		return status, string(page)
	}
	// What is wrong is shown, and the form again.
	if status, page := form("/reset-password", url.Values{"token": {link}, "password": {"short"}}); status != 400 || !strings.Contains(page, "at least 8 characters") || !strings.Contains(page, link) {
		t.Errorf("a short password = %d %s", status, page)
	}
	if status, page := form("/reset-password", url.Values{"token": {link}, "password": {otherPassword}}); status != 200 || !strings.Contains(page, "Password changed") {
		t.Errorf("reset = %d %s", status, page)
	}
	if status, page := form("/reset-password", url.Values{"token": {link}, "password": {otherPassword}}); status != 400 || !strings.Contains(page, "no longer valid") {
		t.Errorf("reset again = %d %s", status, page)
	}
	// The reset made the change of the address void.
	if status, _ := form("/change-email/confirm", url.Values{"token": {confirm}}); status != 400 {
		t.Errorf("confirm after a reset = %d", status)
	}
}
