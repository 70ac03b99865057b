package api_test

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/services/auth-service/internal/account"
	"github.com/headgate/headgate/services/auth-service/internal/factor/factortest"
)

// addPasskey registers a passkey for the owner of a bearer token.
func (s *service) addPasskey(owner user, bearer string) *factortest.Authenticator {
	s.t.Helper()
	_, key := s.newPasskey(owner.ID, bearer, fields{"password": goodPassword})
	key.Counter++
	return key
}

func (s *service) finishPasskeyLogin(passkeyToken string, credential json.RawMessage) answer {
	s.t.Helper()
	return s.call("POST", "/passkeys/login/finish", "", fields{"passkeyToken": passkeyToken, "credential": credential})
}

// If the public URL has an IP address, everything but passkeys works.
func TestNoPasskeysWithoutAName(t *testing.T) {
	t.Parallel()
	s := newService(t, func(cfg *account.Config) { cfg.Passkeys = nil })
	ann := s.signup("ann@example.com").Data.Tokens
	s.want(s.call("POST", "/passkeys", ann.AccessToken, nil), 404, "passkeys_unavailable")
	s.want(s.call("POST", "/passkeys/login", "", nil), 404, "passkeys_unavailable")
}

func TestSEC109BegunCeremoniesStoreNothing(t *testing.T) {
	t.Parallel()
	s := newService(t)
	ann := s.signup("ann@example.com").Data
	before := s.rows()
	for range 20 {
		s.want(s.call("POST", "/passkeys/login", "", nil), 200, "")
		s.want(s.call("POST", "/passkeys", ann.Tokens.AccessToken, fields{"password": goodPassword}), 201, "")
	}
	if diff := cmp.Diff(before, s.rows()); diff != "" {
		t.Errorf("rows after 40 first steps (-before +after):\n%s", diff)
	}
}

func TestSEC109CeremonyIsFinishedOnce(t *testing.T) {
	t.Parallel()
	s := newService(t)
	ann := s.signup("ann@example.com").Data
	registration := s.want(s.call("POST", "/passkeys", ann.Tokens.AccessToken, fields{"password": goodPassword}), 201, "").Data
	key := factortest.New(t, ann.User.ID, "localhost", "http://localhost")
	key.Counter = 0 // Like most passkeys it does not count, so only the ceremony makes an answer unique.
	finish := fields{"passkeyToken": registration.PasskeyToken, "credential": key.Register(registration.Options)}
	s.want(s.call("POST", "/passkeys/finish", ann.Tokens.AccessToken, finish), 201, "")
	s.want(s.call("POST", "/passkeys/finish", ann.Tokens.AccessToken, finish), 410, "passkey_token_expired")

	begun := s.want(s.call("POST", "/passkeys/login", "", nil), 200, "").Data
	var signedIn atomic.Int32
	var tries sync.WaitGroup
	for range 8 {
		tries.Go(func() {
			switch a := s.finishPasskeyLogin(begun.PasskeyToken, key.Login(begun.Options)); {
			case a.status == 200:
				signedIn.Add(1)
			case a.status != 410 || a.Code != "passkey_token_expired":
				t.Errorf("another use of a ceremony = %d %s, want 410", a.status, a.Code)
			}
		})
	}
	tries.Wait()
	if n := signedIn.Load(); n != 1 {
		t.Errorf("one ceremony signed in %d times, want once", n)
	}
	s.want(s.finishPasskeyLogin(begun.PasskeyToken, key.Login(begun.Options)), 410, "passkey_token_expired")
}

// A token is of use for five minutes, for what it was made for, and for its owner. An answer
// that is refused does not use it up.
func TestSEC109CeremonyIsBound(t *testing.T) {
	t.Parallel()
	s := newService(t)
	ann, bob := s.signup("ann@example.com").Data, s.signup("bob@example.com").Data
	key := s.addPasskey(ann.User, ann.Tokens.AccessToken)
	login := s.want(s.call("POST", "/passkeys/login", "", nil), 200, "").Data
	registration := s.want(s.call("POST", "/passkeys", ann.Tokens.AccessToken, fields{"password": goodPassword}), 201, "").Data

	finish := func(bearer, passkeyToken string) answer {
		return s.call("POST", "/passkeys/finish", bearer, fields{"passkeyToken": passkeyToken, "credential": key.Register(registration.Options)})
	}
	s.want(finish(bob.Tokens.AccessToken, registration.PasskeyToken), 410, "passkey_token_expired")
	s.want(finish(ann.Tokens.AccessToken, login.PasskeyToken), 410, "passkey_token_expired")
	s.want(s.finishPasskeyLogin(registration.PasskeyToken, key.Login(registration.Options)), 410, "passkey_token_expired")
	for _, forged := range []string{"x", "s1.", "s1.AAAA", login.PasskeyToken[:len(login.PasskeyToken)-4] + "AAAA"} {
		s.want(s.finishPasskeyLogin(forged, key.Login(login.Options)), 410, "passkey_token_expired")
	}
	// An answer to another challenge.
	s.want(s.finishPasskeyLogin(login.PasskeyToken, key.Login(registration.Options)), 401, "passkey_invalid")
	if got := s.want(s.finishPasskeyLogin(login.PasskeyToken, key.Login(login.Options)), 200, "").Data.User.ID; got != ann.User.ID {
		t.Errorf("signed in as %s, want %s", got, ann.User.ID)
	}

	late := s.want(s.call("POST", "/passkeys/login", "", nil), 200, "").Data
	s.advance(5 * time.Minute)
	s.want(s.finishPasskeyLogin(late.PasskeyToken, key.Login(late.Options)), 410, "passkey_token_expired")
}

// SEC-99: strangers who name an account in answers that its passkeys have not signed neither
// delay its owner nor wait for its lock, and leave no records of it. A copied passkey does
// leave one.
func TestSEC99StrangersCannotLockAPasskeyOut(t *testing.T) {
	t.Parallel()
	s := newService(t)
	home := s.at("198.51.100.1")
	ann := home.verified("ann@example.com").Data
	key := home.addPasskey(ann.User, ann.Tokens.AccessToken)
	junk := factortest.New(t, ann.User.ID, "localhost", "http://localhost")
	finish := func(from *service, with *factortest.Authenticator) answer {
		begun := from.want(from.call("POST", "/passkeys/login", "", nil), 200, "").Data
		return from.finishPasskeyLogin(begun.PasskeyToken, with.Login(begun.Options))
	}

	tx, err := s.db.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	late := time.AfterFunc(20*time.Second, func() {
		t.Error("a stranger's answer waits for the lock of the account")
		_ = tx.Rollback(context.Background())
	})
	if _, err := tx.Exec(t.Context(), `SELECT FROM accounts WHERE id = $1 FOR UPDATE`, ann.User.ID); err != nil {
		t.Fatal(err)
	}
	for i := range 25 {
		s.want(finish(s.at(fmt.Sprintf("203.0.113.%d", i)), junk), 401, "passkey_invalid")
	}
	if late.Stop() {
		_ = tx.Rollback(context.Background())
	}

	hotel := s.at("192.0.2.9")
	s.want(finish(hotel, key), 200, "")
	failures := func() (n int) {
		if err := s.refusals.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
		for _, e := range s.events(event.Audit) {
			if e.Subject == ann.User.ID && e.Name == (event.UserLoginFailed{}).EventName() {
				n += occurrences(t, e)
			}
		}
		return n
	}
	if n := failures(); n != 0 {
		t.Errorf("%d failures are recorded for the account, want none", n)
	}
	for range 25 {
		s.want(finish(s.at("203.0.113.1"), key), 401, "passkey_invalid") // Its counter has not advanced.
	}
	if n := failures(); n != 25 {
		t.Errorf("%d uses of a copy are recorded for the account, want 25", n)
	}
	key.Counter += 2
	s.want(finish(hotel, key), 200, "")
}
