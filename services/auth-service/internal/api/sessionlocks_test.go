package api_test

import (
	"context"
	"testing"
	"time"
)

// SEC-102: a sign-in, and a change that ends no other session, do not wait for a lock of
// another session of the account, for example by its refresh.
func TestSEC102OtherSessionsAreNotLocked(t *testing.T) {
	t.Parallel()
	s := newService(t)
	owner := s.verified("ann@example.com").Data.User
	_, secret, _ := s.enrol(s.login("ann@example.com").Data.Tokens.AccessToken)
	signIn := func() tokens {
		t.Helper()
		s.advance(30 * time.Second) // to the next code
		in := s.login("ann@example.com").Data
		return s.want(s.challenge(in.MFAToken, s.code(secret)), 200, "").Data.Tokens
	}
	other, bearer := signIn().SessionID, signIn().AccessToken

	tx, err := s.db.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	late := time.AfterFunc(20*time.Second, func() {
		t.Error("a request waits for the lock of another session")
		_ = tx.Rollback(context.Background())
	})
	defer func() {
		if late.Stop() {
			_ = tx.Rollback(context.Background())
		}
	}()
	if _, err := tx.Exec(t.Context(), `SELECT FROM sessions WHERE id = $1 FOR UPDATE`, other); err != nil {
		t.Fatal(err)
	}

	signIn()
	s.advance(30 * time.Second)
	proof := s.prove(bearer, fields{"password": goodPassword, "code": s.code(secret)})
	id, key := s.newPasskey(owner.ID, bearer, fields{"proof": proof})
	begun := s.want(s.call("POST", "/passkeys/login", "", nil), 200, "").Data
	key.Counter++
	s.want(s.finishPasskeyLogin(begun.PasskeyToken, key.Login(begun.Options)), 200, "")
	s.want(s.call("PATCH", "/passkeys/"+id, bearer, fields{"name": "Phone"}), 200, "")
	s.want(s.call("DELETE", "/passkeys/"+id, bearer, fields{"password": goodPassword}), 200, "")
	s.want(s.call("POST", "/change-email", bearer, fields{"newEmail": "eve@example.com", "currentPassword": goodPassword}), 202, "")
	s.advance(30 * time.Second)
	proof = s.prove(bearer, fields{"mailCode": s.mailedCode(bearer, "ann@example.com", 1), "code": s.code(secret)})
	s.want(s.call("POST", "/mfa/recovery-codes", bearer, fields{"proof": proof}), 200, "")
	s.want(s.call("POST", "/mfa/totp", bearer, nil), 201, "")
	s.forgot("ann@example.com")
	s.wantServed()
}
