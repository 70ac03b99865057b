package api_test

import (
	"testing"
	"time"

	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/services/auth-service/internal/account"
)

const grace = 14 * 24 * time.Hour

func newGraceService(t *testing.T) *service {
	t.Helper()
	return newService(t, func(cfg *account.Config) { cfg.Lifetimes.DeletionGrace = grace })
}

func (s *service) deleteOwn(bearer string) {
	s.t.Helper()
	a := s.want(s.call("DELETE", "/account", bearer, fields{"password": goodPassword}), 202, "")
	if a.Data.Status != "scheduled" || !a.Data.DeleteAt.Equal(s.time().Add(grace).Truncate(time.Microsecond)) {
		s.t.Errorf("deletion = %s at %s", a.Data.Status, a.Data.DeleteAt)
	}
}

// SEC-158: a deleted account is out of reach at once, is restored by any sign-in of its owner
// within the grace, and is deleted everywhere after it.
func TestSEC158DeletionGrace(t *testing.T) {
	t.Parallel()
	s := newGraceService(t)
	root := s.admin()
	ann := s.verified("ann@example.com").Data
	s.deleteOwn(ann.Tokens.AccessToken)
	s.want(s.call("GET", "/sessions", ann.Tokens.AccessToken, nil), 401, "session_revoked")
	s.want(s.refresh(ann.Tokens.RefreshToken), 401, "session_revoked")
	s.want(s.call("POST", "/signup", "", fields{"email": "ann@example.com", "password": goodPassword, "name": "Other"}), 409, "email_taken")
	if a := s.want(s.call("GET", "/users/"+ann.User.ID, root.AccessToken, nil), 200, ""); a.Data.DeleteAt.IsZero() {
		t.Error("an administrator does not see that the account will be deleted")
	}
	s.wantCount(event.Email, event.UserDeletionScheduled{}, 1)
	s.wantCount(event.Email, event.UserDeleted{}, 0)

	s.advance(grace - time.Minute)
	s.deleteDue()
	s.want(s.try("ann@example.com", "not my password"), 401, "invalid_credentials")
	s.wantCount(event.Email, event.UserDeletionCancelled{}, 0)
	if u := s.login("ann@example.com").Data.User; u.ID != ann.User.ID || !u.DeleteAt.IsZero() {
		t.Errorf("restored account = %+v", u)
	}
	s.wantCount(event.Email, event.UserDeletionCancelled{}, 1)
	s.wantCount(event.Audit, event.UserDeletionCancelled{}, 1)
	s.advance(2 * time.Minute)
	s.deleteDue()
	again := s.login("ann@example.com").Data
	s.wantCount(event.Email, event.UserDeletionCancelled{}, 1)

	s.deleteOwn(again.Tokens.AccessToken)
	s.advance(grace)
	s.deleteDue()
	s.want(s.try("ann@example.com", goodPassword), 401, "invalid_credentials")
	for _, topic := range []event.Topic{event.Audit, event.User, event.Email} {
		s.wantCount(topic, event.UserDeleted{}, 1)
	}
	s.signup("ann@example.com") // The address is available again.
}

func (s *service) deleteDue() {
	s.t.Helper()
	if err := s.accounts.DeleteDue(s.t.Context()); err != nil {
		s.t.Fatal(err)
	}
}

func TestSEC158EverySignInRestores(t *testing.T) {
	t.Parallel()
	s := newGraceService(t)
	withPasskey, withCode := s.verified("ann@example.com").Data, s.verified("bob@example.com").Data
	key := s.addPasskey(withPasskey.User, withPasskey.Tokens.AccessToken)
	_, secret, _ := s.enrol(withCode.Tokens.AccessToken)
	s.deleteOwn(withPasskey.Tokens.AccessToken)
	s.deleteOwn(withCode.Tokens.AccessToken)

	begun := s.want(s.call("POST", "/passkeys/login", "", nil), 200, "").Data
	s.want(s.finishPasskeyLogin(begun.PasskeyToken, key.Login(begun.Options)), 200, "")
	waiting := s.login("bob@example.com").Data
	s.wantCount(event.Email, event.UserDeletionCancelled{}, 1) // The password alone restores nothing.
	s.advance(time.Minute)
	s.want(s.challenge(waiting.MFAToken, s.code(secret)), 200, "")
	s.wantCount(event.Email, event.UserDeletionCancelled{}, 2)
	s.advance(grace + time.Minute)
	s.deleteDue()
	s.wantCount(event.User, event.UserDeleted{}, 0)
}

// TestSEC158OutlivedDeletion: a release without a grace, which runs beside this one or after a
// rollback, does not cancel a deletion when the owner signs in. The account is kept nevertheless.
func TestSEC158OutlivedDeletion(t *testing.T) {
	t.Parallel()
	s := newGraceService(t)
	var due time.Time
	signIn := func(email string) (accessToken string) {
		t.Helper()
		tokens := s.login(email).Data.Tokens
		if _, err := s.db.Exec(t.Context(), `UPDATE accounts SET delete_at = $2 WHERE email_key = $1`, email, due); err != nil {
			t.Fatal(err)
		}
		return tokens.AccessToken
	}
	for _, email := range []string{"ann@example.com", "bob@example.com", "eve@example.com"} {
		before := s.verified(email).Data.Tokens.AccessToken
		s.want(s.call("POST", "/logout", s.login(email).Data.Tokens.AccessToken, nil), 200, "")
		s.advance(time.Second)
		s.deleteOwn(before)
		due = s.time().Add(grace)
	}
	s.advance(time.Second)
	signIn("ann@example.com")
	s.want(s.call("POST", "/logout", signIn("bob@example.com"), nil), 200, "")
	s.wantCount(event.Email, event.UserDeletionCancelled{}, 2)
	s.deleteDue()
	s.wantCount(event.Email, event.UserDeletionCancelled{}, 4)
	s.advance(grace)
	s.deleteDue()
	s.wantCount(event.User, event.UserDeleted{}, 1)
	s.login("ann@example.com")
	s.login("bob@example.com")
	s.want(s.try("eve@example.com", goodPassword), 401, "invalid_credentials")
}

// TestSEC34NoMailAboutRestoresToUnprovedAddress: whoever has signed up with another person's
// address cannot fill that mailbox by deleting the account and signing in again.
func TestSEC34NoMailAboutRestoresToUnprovedAddress(t *testing.T) {
	t.Parallel()
	s := newGraceService(t)
	s.deleteOwn(s.signup("ann@example.com").Data.Tokens.AccessToken)
	s.login("ann@example.com")
	s.wantCount(event.Audit, event.UserDeletionCancelled{}, 1)
	s.wantCount(event.Email, event.UserDeletionCancelled{}, 0)
}

// An administrator deletes at once: the grace is for owners who change their minds.
func TestSEC158AdministratorDeletesAtOnce(t *testing.T) {
	t.Parallel()
	s := newGraceService(t)
	root := s.admin()
	ann := s.signup("ann@example.com").Data
	s.deleteOwn(ann.Tokens.AccessToken)
	s.want(s.call("DELETE", "/users/"+ann.User.ID, root.AccessToken, nil), 202, "")
	s.want(s.try("ann@example.com", goodPassword), 401, "invalid_credentials")
	s.wantCount(event.User, event.UserDeleted{}, 1)
	s.want(s.call("DELETE", "/account", root.AccessToken, fields{"password": goodPassword}), 409, "last_admin")

	second := s.signup("bob@example.com").Data
	s.want(s.call("PATCH", "/users/"+second.User.ID, root.AccessToken, fields{"role": "admin"}), 200, "")
	s.deleteOwn(s.login("bob@example.com").Data.Tokens.AccessToken)
	// An administrator whose deletion is scheduled does not count.
	s.want(s.call("DELETE", "/account", root.AccessToken, fields{"password": goodPassword}), 409, "last_admin")
}

// TestAccountVersions: versions grow with each change of the address, also when the account
// came back from an older copy of the database.
func TestAccountVersions(t *testing.T) {
	t.Parallel()
	s := newService(t)
	ann := s.signup("ann@example.com").Data
	s.changeEmail(ann.Tokens.AccessToken, "ann@example.org")
	lost := s.accountVersions(ann.User.ID)
	if len(lost) != 2 || lost[0] == 0 || lost[1] <= lost[0] {
		t.Fatalf("versions = %v, want two that grow", lost)
	}
	if _, err := s.db.Exec(t.Context(), `UPDATE accounts SET email = 'ann@example.com', email_key = 'ann@example.com', version = $2 WHERE id = $1`, ann.User.ID, lost[0]); err != nil {
		t.Fatal(err)
	}
	s.advance(time.Minute)
	s.changeEmail(ann.Tokens.AccessToken, "ann@example.net")
	if all := s.accountVersions(ann.User.ID); len(all) != 3 || all[2] <= lost[1] {
		t.Errorf("versions = %v: the last is not above one that the database has lost", all)
	}
}

func (s *service) accountVersions(id string) (versions []int64) {
	s.t.Helper()
	for _, e := range s.events(event.User) {
		switch {
		case e.Subject != id:
		case e.Name == (event.UserSignedUp{}).EventName():
			versions = append(versions, decoded[event.UserSignedUp](s.t, e).AccountVersion)
		case e.Name == (event.UserEmailChanged{}).EventName():
			versions = append(versions, decoded[event.UserEmailChanged](s.t, e).AccountVersion)
		}
	}
	return versions
}

func decoded[P event.Payload](t *testing.T, e event.Event) P {
	t.Helper()
	p, err := event.Decode[P](e)
	if err != nil {
		t.Fatal(err)
	}
	return p
}
