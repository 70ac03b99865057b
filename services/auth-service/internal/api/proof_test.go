package api_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/services/auth-service/internal/factor/factortest"
)

// newPasskey registers a passkey and returns its id and its authenticator.
func (s *service) newPasskey(owner, bearer string, with fields) (string, *factortest.Authenticator) {
	s.t.Helper()
	key := factortest.New(s.t, owner, "localhost", "http://localhost")
	begun := s.want(s.call("POST", "/passkeys", bearer, with), 201, "").Data
	finish := fields{"passkeyToken": begun.PasskeyToken, "name": "Laptop", "credential": key.Register(begun.Options)}
	return s.want(s.call("POST", "/passkeys/finish", bearer, finish), 201, "").Account.ID, key
}

// mailedCode asks for a code by mail and returns it.
func (s *service) mailedCode(bearer, address string, n int) string {
	s.t.Helper()
	s.want(s.call("POST", "/reauthenticate/mail", bearer, nil), 202, "")
	return s.link(event.UserReauthCodeIssued{}, address, n)
}

// SEC-90: a stolen access token, however young, adds nothing that could sign in.
func TestSEC90StolenBearerAddsNoFactor(t *testing.T) {
	t.Parallel()
	s := newService(t)
	ann := s.signup("ann@example.com").Data.Tokens
	s.want(s.call("POST", "/passkeys", ann.AccessToken, nil), 401, "reauth_required")
	s.want(s.call("POST", "/passkeys", ann.AccessToken, fields{}), 401, "reauth_required")
	s.want(s.call("POST", "/passkeys", ann.AccessToken, fields{"password": "guess"}), 401, "current_password_invalid")
	s.want(s.call("POST", "/passkeys", ann.AccessToken, fields{"proof": "guess"}), 401, "reauth_required")
	e := s.want(s.call("POST", "/mfa/totp", ann.AccessToken, nil), 201, "").Data
	verify := func(with fields) answer {
		with["code"] = s.code(e.Secret)
		return s.call("POST", "/mfa/totp/"+e.FactorID+"/verify", ann.AccessToken, with)
	}
	s.want(verify(fields{}), 401, "reauth_required")
	s.want(verify(fields{"proof": ""}), 401, "reauth_required")
	s.want(verify(fields{"password": goodPassword}), 200, "")
	s.advance(30 * time.Second)

	// With a second factor, the password alone proves too little.
	s.want(s.call("POST", "/passkeys", ann.AccessToken, fields{"password": goodPassword}), 401, "reauth_required")
	s.want(s.call("POST", "/mfa/recovery-codes", ann.AccessToken, nil), 401, "reauth_required")
	s.want(s.call("POST", "/mfa/recovery-codes", ann.AccessToken, fields{"password": goodPassword}), 401, "reauth_required")
	proof := s.prove(ann.AccessToken, fields{"password": goodPassword, "code": s.code(e.Secret)})
	s.want(s.call("POST", "/passkeys", ann.AccessToken, fields{"proof": proof}), 201, "")
}

// SEC-90: a proof allows one change, for five minutes, in its own session.
func TestSEC90ProofIsForOneChange(t *testing.T) {
	t.Parallel()
	s := newService(t)
	ann := s.signup("ann@example.com").Data.Tokens
	other := s.login("ann@example.com").Data.Tokens
	password := fields{"password": goodPassword}
	begin := func(in tokens, proof string) answer {
		return s.call("POST", "/passkeys", in.AccessToken, fields{"proof": proof})
	}
	first := s.prove(ann.AccessToken, password)
	s.want(begin(other, first), 401, "reauth_required")
	s.want(begin(ann, first), 201, "")
	s.want(begin(ann, first), 401, "reauth_required")
	older, newer := s.prove(ann.AccessToken, password), s.prove(ann.AccessToken, password)
	s.want(begin(ann, older), 401, "reauth_required")
	s.advance(5*time.Minute + time.Second)
	s.want(begin(ann, newer), 401, "reauth_required")
	var stored int
	if err := s.db.QueryRow(t.Context(), `SELECT count(*) FROM sessions WHERE proof_hash = convert_to($1, 'UTF8')`, newer).Scan(&stored); err != nil || stored != 0 {
		t.Errorf("the proof itself is stored: %d, %v", stored, err)
	}
	if got := s.parallel("/reauthenticate", password); got["401 unauthenticated"] != 20 {
		t.Errorf("without a token: %v", got)
	}
}

// SEC-90: a ceremony that needed no proof cannot finish a registration, and neither can
// one of another session.
func TestSEC90CeremonyKeepsItsPurpose(t *testing.T) {
	t.Parallel()
	s := newService(t)
	in := s.signup("ann@example.com").Data
	ann, other := in.Tokens, s.login("ann@example.com").Data.Tokens
	key := factortest.New(t, in.User.ID, "localhost", "http://localhost")
	register := func(in tokens, begun string, options any) answer {
		return s.call("POST", "/passkeys/finish", in.AccessToken, fields{"passkeyToken": begun, "credential": key.Register(options)})
	}
	for _, path := range []string{"/reauthenticate/passkey", "/passkeys/login"} {
		begun := s.want(s.call("POST", path, ann.AccessToken, nil), 200, "").Data
		s.want(register(ann, begun.PasskeyToken, begun.Options), 410, "passkey_token_expired")
	}
	begun := s.want(s.call("POST", "/passkeys", ann.AccessToken, fields{"password": goodPassword}), 201, "").Data
	s.want(register(other, begun.PasskeyToken, begun.Options), 410, "passkey_token_expired")

	// A registered passkey is a proof, in the session that asked for it.
	_, mine := s.newPasskey(in.User.ID, ann.AccessToken, fields{"password": goodPassword})
	begun = s.want(s.call("POST", "/reauthenticate/passkey", ann.AccessToken, nil), 200, "").Data
	reauth := func(in tokens, signed json.RawMessage) answer {
		return s.call("POST", "/reauthenticate/passkey/finish", in.AccessToken, fields{"passkeyToken": begun.PasskeyToken, "credential": signed})
	}
	mine.Counter++
	signed := mine.Login(begun.Options)
	s.want(reauth(other, signed), 410, "passkey_token_expired")
	s.want(reauth(ann, key.Login(begun.Options)), 401, "passkey_invalid")
	proof := s.want(reauth(ann, signed), 200, "").Data.Proof
	s.want(s.call("POST", "/passkeys", ann.AccessToken, fields{"proof": proof}), 201, "")
	s.want(reauth(ann, signed), 410, "passkey_token_expired")
}

// SEC-90: codes by mail go to verified addresses only, the newest alone works, in its own
// session, and guesses are few.
func TestSEC90MailedCodes(t *testing.T) {
	t.Parallel()
	s := newService(t)
	eve := s.signup("eve@example.com").Data.Tokens
	s.want(s.call("POST", "/reauthenticate/mail", eve.AccessToken, nil), 403, "email_not_verified")

	s.verified("ann@example.com")
	ann, other := s.login("ann@example.com").Data.Tokens, s.login("ann@example.com").Data.Tokens
	prove := func(in tokens, code string) answer {
		return s.call("POST", "/reauthenticate", in.AccessToken, fields{"mailCode": code})
	}
	s.want(prove(ann, "1234-5678"), 410, "mail_code_expired")
	first := s.mailedCode(ann.AccessToken, "ann@example.com", 1)
	second := s.mailedCode(ann.AccessToken, "ann@example.com", 2)
	s.want(prove(other, second), 410, "mail_code_expired")
	s.want(prove(ann, first), 401, "mail_code_invalid")
	proof := s.want(prove(ann, " "+strings.ReplaceAll(second, "-", " ")), 200, "").Data.Proof
	s.want(prove(ann, second), 410, "mail_code_expired")
	s.want(s.call("POST", "/passkeys", ann.AccessToken, fields{"proof": proof}), 201, "")

	third := s.mailedCode(ann.AccessToken, "ann@example.com", 3)
	for range 5 {
		s.want(prove(ann, "0000-0000"), 401, "mail_code_invalid")
	}
	s.want(prove(ann, third), 410, "mail_code_expired")
	s.want(s.call("POST", "/reauthenticate/mail", ann.AccessToken, nil), 429, "too_many_mails")
	s.advance(time.Hour + time.Second)
	ann = s.want(s.refresh(ann.RefreshToken), 200, "").Data.Tokens
	late := s.mailedCode(ann.AccessToken, "ann@example.com", 4)
	s.advance(10*time.Minute + time.Second)
	s.want(prove(ann, late), 410, "mail_code_expired")
}

// SEC-90: guesses at mailed codes count for the account, across codes, like those at codes
// of a second factor, which a mailed code does not replace.
func TestSEC90MailedCodesCountForTheAccount(t *testing.T) {
	t.Parallel()
	s := newService(t)
	s.verified("ann@example.com")
	ann := s.login("ann@example.com").Data.Tokens
	_, secret, _ := s.enrol(ann.AccessToken)
	code := s.mailedCode(ann.AccessToken, "ann@example.com", 1)
	s.want(s.call("POST", "/reauthenticate", ann.AccessToken, fields{"mailCode": code}), 400, "validation_failed")
	s.want(s.call("POST", "/reauthenticate", ann.AccessToken, fields{"mailCode": code, "code": "000000"}), 401, "mfa_code_invalid")
	s.want(s.call("POST", "/reauthenticate", ann.AccessToken, fields{"mailCode": code, "code": s.code(secret)}), 200, "")
	got := map[string]int{}
	for n := range 3 {
		if n < 2 {
			s.mailedCode(ann.AccessToken, "ann@example.com", n+2)
		}
		for range 5 {
			a := s.call("POST", "/reauthenticate", ann.AccessToken, fields{"mailCode": "00000000", "code": "000000"})
			got[fmt.Sprint(a.status, " ", a.Code)]++
		}
	}
	if got["401 mail_code_invalid"] != 10 || got["429 rate_limited"] == 0 {
		t.Errorf("15 guesses at three codes = %v", got)
	}
}

// SEC-91: a new password says what else can sign in, and can remove it: a reset does unless
// it is told not to, a change only if it is told to.
func TestSEC91NewPasswordAndPasskeys(t *testing.T) {
	t.Parallel()
	s := newService(t)
	in := s.verified("ann@example.com").Data
	ann := s.login("ann@example.com").Data.Tokens
	id, _ := s.newPasskey(in.User.ID, ann.AccessToken, fields{"password": goodPassword})
	change := func(old, next string, with fields) answer {
		with["currentPassword"], with["newPassword"] = old, next
		a := s.want(s.call("POST", "/change-password", ann.AccessToken, with), 200, "")
		ann = a.Data.Tokens
		return a
	}
	kept := change(goodPassword, otherPassword, fields{}).Data
	if len(kept.Passkeys) != 1 || kept.Passkeys[0].ID != id || kept.Passkeys[0].Name != "Laptop" || len(kept.RemovedPasskeys) != 0 || kept.SessionsEnded != 2 {
		t.Errorf("change = %+v", kept)
	}
	resets := 0
	reset := func(next string, with fields) answer {
		s.forgot("ann@example.com")
		resets++
		with["token"], with["newPassword"] = s.link(event.UserResetLinkIssued{}, "ann@example.com", resets), next
		return s.want(s.call("POST", "/reset-password", "", with), 200, "")
	}
	if got := reset(goodPassword, fields{"removePasskeys": false}).Data; len(got.Passkeys) != 1 || got.SessionsEnded != 1 {
		t.Errorf("reset that keeps passkeys = %+v", got)
	}
	if got := reset(goodPassword, fields{}).Data; len(got.Passkeys) != 0 || len(got.RemovedPasskeys) != 1 || got.RemovedPasskeys[0].ID != id {
		t.Errorf("reset = %+v", got)
	}
	ann = s.login("ann@example.com").Data.Tokens
	s.newPasskey(in.User.ID, ann.AccessToken, fields{"password": goodPassword})
	if got := change(goodPassword, otherPassword, fields{"removePasskeys": true}).Data; len(got.Passkeys) != 0 || len(got.RemovedPasskeys) != 1 {
		t.Errorf("change that removes passkeys = %+v", got)
	}
	// One mail tells of the password and the passkeys.
	var notices []string
	for _, e := range s.events(event.Email) {
		if p, err := event.Decode[event.UserPasswordChanged](e); err == nil {
			notices = append(notices, fmt.Sprint(p.PasskeysLeft, " left, ", p.PasskeysRemoved, " removed"))
		}
	}
	if got, want := fmt.Sprint(notices), "[1 left, 0 removed 1 left, 0 removed 0 left, 1 removed 0 left, 1 removed]"; got != want {
		t.Errorf("notices = %s, want %s", got, want)
	}
	s.wantCount(event.Email, event.MFARemoved{}, 0)
	s.wantCount(event.Audit, event.MFARemoved{}, 2)
}
