package api_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"golang.org/x/crypto/bcrypt"

	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/services/auth-service/internal/account"
	"github.com/headgate/headgate/services/auth-service/internal/password"
)

// during commits a change of an account after a request has read it and before it
// writes, which waits for the change.
func (s *service) during(change, accountID string, request func() answer) answer {
	s.t.Helper()
	tx, err := s.db.Begin(s.t.Context())
	if err != nil {
		s.t.Fatal(err)
	}
	defer tx.Rollback(context.Background()) //nolint:errcheck // It has committed, or the test has failed.
	if _, err := tx.Exec(s.t.Context(), `UPDATE accounts SET `+change+` WHERE id = $1`, accountID); err != nil {
		s.t.Fatal(err)
	}
	ended := make(chan answer, 1)
	go func() { ended <- request() }()
	for waits := false; !waits; {
		const query = `
			SELECT EXISTS (
				SELECT FROM pg_locks l JOIN pg_stat_activity a USING (pid)
				WHERE NOT l.granted AND a.datname = current_database())`
		if err := s.db.QueryRow(s.t.Context(), query).Scan(&waits); err != nil {
			s.t.Fatal(err)
		}
		select {
		case got := <-ended:
			s.t.Fatalf("the request did not wait: %d %s", got.status, got.Code)
		case <-time.After(time.Millisecond):
		}
	}
	if err := tx.Commit(s.t.Context()); err != nil {
		s.t.Fatal(err)
	}
	return <-ended
}

// A login gets the rights that the account has at its end: SEC-14 and SEC-51 for
// somebody who loses them while the password is hashed.
func TestSEC14LoginDuringAChange(t *testing.T) {
	t.Parallel()
	s := newService(t)
	s.admin()
	email := newEmail()
	eve, err := s.accounts.CreateAdmin(t.Context(), account.SignUp{Email: email, Password: goodPassword, Name: "Eve"})
	if err != nil {
		t.Fatal(err)
	}
	in := s.want(s.during(`role = 'user'`, eve.ID, func() answer { return s.try(email, goodPassword) }), 200, "").Data
	s.want(s.call("GET", "/users", in.Tokens.AccessToken, nil), 403, "forbidden")

	ann := s.signup("ann@example.com").Data.User
	in = s.during(`mfa_enabled = true`, ann.ID, func() answer { return s.try("ann@example.com", goodPassword) }).Data
	if in.Status != "mfa_required" || in.Tokens.AccessToken != "" {
		t.Errorf("login while a second factor is added = %+v, want the question for it", in)
	}
	got := s.during(`status = 'disabled'`, eve.ID, func() answer { return s.try(email, goodPassword) })
	s.want(got, 403, "account_disabled")
}

// An id has one form. In another one it would be compared with itself in vain, or
// be none to Postgres (SEC-50, SEC-51).
func TestSEC50OtherFormsOfAnID(t *testing.T) {
	t.Parallel()
	s := newService(t)
	root, _ := s.admin(), s.admin()
	for _, id := range []string{
		strings.ToUpper(root.userID), "urn:uuid:" + root.userID, "{" + root.userID + "}", strings.ReplaceAll(root.userID, "-", ""),
	} {
		s.want(s.call("GET", "/users/"+id, root.AccessToken, nil), 404, "account_not_found")
		s.want(s.call("PATCH", "/users/"+id, root.AccessToken, fields{"role": "user"}), 404, "account_not_found")
		s.want(s.call("DELETE", "/users/"+id, root.AccessToken, nil), 404, "account_not_found")
		s.want(s.call("POST", "/users/"+id+"/revoke-sessions", root.AccessToken, nil), 404, "account_not_found")
		s.want(s.call("POST", "/users/"+id+"/reset-mfa", root.AccessToken, nil), 404, "account_not_found")
	}
	for _, id := range []string{strings.ToUpper(root.SessionID), "urn:uuid:" + root.SessionID} {
		s.want(s.call("DELETE", "/sessions/"+id, root.AccessToken, nil), 404, "session_not_found")
	}
	s.want(s.call("GET", "/users", root.AccessToken, nil), 200, "")
}

// changeEmail moves an account to another address, which is proved.
func (s *service) changeEmail(bearer, to string) {
	s.t.Helper()
	s.want(s.call("POST", "/change-email", bearer, fields{"newEmail": to, "currentPassword": goodPassword}), 202, "")
	s.want(s.call("POST", "/change-email/confirm", "", fields{"token": s.link(event.UserEmailChangeLinkIssued{}, to, 1)}), 200, "")
}

// Somebody who has the password and a session can move the account, but not keep
// it: neither by moving it on and taking that back, nor by a factor (SEC-36).
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
		t.Errorf("the owner is asked for the thief's factor: %+v", got)
	}
}

// Whoever has an address that nobody proved to own may take a change back for as
// long as they could have proved it, and no longer: it may have been mistyped.
func TestSEC36UnprovedAddress(t *testing.T) {
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

// An account that somebody made with another's address has no way in for them once
// its owner has proved to read the mail.
func TestSEC30PreparedAccount(t *testing.T) {
	t.Parallel()
	s := newService(t)
	stranger := s.signup("victim@example.com").Data
	const passkey = `
		INSERT INTO factors (id, account_id, kind, name, secret, lookup, last_step, created_at, confirmed_at)
		VALUES ($1, $2, 'passkey', 'Passkey', '{}', 'x', 0, now(), now())`
	if _, err := s.db.Exec(t.Context(), passkey, uuid.NewString(), stranger.User.ID); err != nil {
		t.Fatal(err)
	}
	s.forgot("victim@example.com")
	reset := s.link(event.UserResetLinkIssued{}, "victim@example.com", 1)
	s.want(s.call("POST", "/reset-password", "", fields{"token": reset, "newPassword": otherPassword}), 200, "")
	s.wantCount(event.Audit, event.MFARemoved{}, 1)
}

// A sign-in that waits for its second factor ends with the password it began with.
func TestSEC14ChallengeEndsWithThePassword(t *testing.T) {
	t.Parallel()
	s := newService(t)
	s.verified("ann@example.com")
	ann := s.login("ann@example.com").Data
	_, secret, _ := s.enrol(ann.Tokens.AccessToken)
	waiting := s.login("ann@example.com").Data // of whoever has the old password
	s.forgot("ann@example.com")
	reset := s.link(event.UserResetLinkIssued{}, "ann@example.com", 1)
	s.want(s.call("POST", "/reset-password", "", fields{"token": reset, "newPassword": otherPassword}), 200, "")
	s.advance(time.Minute)
	s.want(s.challenge(waiting.MFAToken, s.code(secret)), 410, "mfa_token_expired")
}

// In Strict mode a login tells as little as the sign-up (SEC-27).
func TestSEC27StrictLogin(t *testing.T) {
	t.Parallel()
	s := newService(t, func(cfg *account.Config) { cfg.Mode, cfg.RequireVerified = account.SignUpStrict, true })
	if _, err := s.accounts.CreateAdmin(t.Context(), account.SignUp{Email: "taken@example.com", Password: goodPassword, Name: "x"}); err != nil {
		t.Fatal(err)
	}
	for _, email := range []string{"taken@example.com", "free@example.com"} {
		s.want(s.call("POST", "/signup", "", fields{"email": email, "password": otherPassword, "name": "Eve"}), 202, "")
		s.wantServed()
		s.want(s.try(email, otherPassword), 401, "invalid_credentials")
	}
	s.want(s.call("POST", "/verify-email", "", fields{"token": s.link(event.UserVerificationRequested{}, "free@example.com", 1)}), 200, "")
	s.want(s.try("free@example.com", otherPassword), 200, "")
}

// What somebody does with an account of their own fills no stranger's mailbox
// (SEC-34).
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

// Strangers who ask for mails leave some for the owner, who asks from where they
// are known.
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

// Who knows the password and guesses at the code does not lock the owner out where
// they are known (SEC-31).
func TestSEC31GuessesAtTheCode(t *testing.T) {
	t.Parallel()
	s := newService(t)
	home, thief := s.at("192.0.2.1"), s.at("198.51.100.1")
	ann := home.signup("ann@example.com").Data
	_, secret, _ := s.enrol(ann.Tokens.AccessToken)
	for range 2 {
		in := thief.login("ann@example.com").Data
		for range 5 {
			s.want(thief.challenge(in.MFAToken, "000000"), 401, "mfa_code_invalid")
		}
	}
	in := thief.login("ann@example.com").Data
	s.want(thief.challenge(in.MFAToken, "000000"), 429, "rate_limited")
	s.advance(30 * time.Second)
	in = home.login("ann@example.com").Data
	s.want(home.challenge(in.MFAToken, s.code(secret)), 200, "")
}

// Hashes of other kinds sign in, whatever new ones are made of.
func TestOldHashes(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("correct horse battery ", 5)
	hasher := password.NewHasher(password.Config{Params: cheap, Concurrency: 1, Queue: 1})
	argon, err := hasher.Hash(t.Context(), long)
	if err != nil {
		t.Fatal(err)
	}
	typed := "pass\u00b2word\u2026of old" // NFKC makes other characters of it.
	crypt, err := bcrypt.GenerateFromPassword([]byte(typed), 4)
	if err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		bcryptCost     int
		hash, password string
	}{
		"too long for bcrypt":    {10, argon, long},
		"hashed as it was typed": {0, string(crypt), typed},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newService(t, func(cfg *account.Config) {
				cfg.Hasher = password.NewHasher(password.Config{Params: cheap, BcryptCost: tc.bcryptCost, Concurrency: 2, Queue: 10})
			})
			if _, err := s.accounts.Import(t.Context(), []account.Imported{{Email: "ann@example.com", Name: "Ann", PasswordHash: tc.hash}}); err != nil {
				t.Fatal(err)
			}
			for range 2 {
				s.want(s.try("ann@example.com", tc.password), 200, "")
			}
		})
	}
}

// An import refuses what nobody could sign in with, and an address that somebody
// took before.
func TestImportRefusesWhatIsNoUse(t *testing.T) {
	t.Parallel()
	s := newService(t)
	for _, hash := range []string{
		"$argon2id$v=19$m=64,t=1,p=1,keyid=gone$c2FsdHNhbHQ$a2V5a2V5a2V5a2V5a2V5a2V5a2V5", "$2b$10$" + strings.Repeat("!", 53),
	} {
		if err := s.accounts.CheckImport(account.Imported{Email: "ann@example.com", Name: "Ann", PasswordHash: hash}); err == nil {
			t.Errorf("CheckImport takes the hash %s", hash)
		}
	}
	s.signup("ann@example.com") // by somebody else
	got, err := s.accounts.Import(t.Context(), []account.Imported{{Email: "ann@example.com", Name: "Ann"}})
	if err != nil || got[0] != account.ImportConflict {
		t.Errorf("Import = %v, %v, want that it clashes", got, err)
	}
}

// Who may not guess any more is told in the owner's own feed.
func TestSEC79BlockedGuessesAreTheOwners(t *testing.T) {
	t.Parallel()
	s := newService(t)
	ann := s.signup("ann@example.com").Data.User
	for range 10 {
		s.at("198.51.100.1").try("ann@example.com", "guess")
	}
	s.want(s.at("198.51.100.1").try("ann@example.com", "guess"), 429, "rate_limited")
	all := s.events(event.Audit)
	if last := all[len(all)-1]; last.Subject != ann.ID || last.Type() != "user.login_failed" {
		t.Errorf("event = %s of %q, want the failure of %s", last.Type(), last.Subject, ann.ID)
	}
}
