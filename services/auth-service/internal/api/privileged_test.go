package api_test

import (
	"strings"
	"testing"
	"time"

	"github.com/headgate/headgate/pkg/token"
	"github.com/headgate/headgate/services/auth-service/internal/account"
	"github.com/headgate/headgate/services/auth-service/internal/factor/factortest"
)

func requireMFA(cfg *account.Config) { cfg.RequireMFAFor = []string{token.RoleAdmin} }

// passkeyProof re-authenticates with a passkey.
func (s *service) passkeyProof(bearer string, key *factortest.Authenticator) fields {
	s.t.Helper()
	begun := s.want(s.call("POST", "/reauthenticate/passkey", bearer, nil), 200, "").Data
	key.Counter++
	finish := fields{"passkeyToken": begun.PasskeyToken, "credential": key.Login(begun.Options)}
	return fields{"proof": s.want(s.call("POST", "/reauthenticate/passkey/finish", bearer, finish), 200, "").Data.Proof}
}

// SEC-92: if a role needs a second factor, the password alone does not lead to the first one:
// that needs a mailed code as well. The address, where codes go, is protected alike.
func TestSEC92PasswordAloneAddsNoFirstFactor(t *testing.T) {
	t.Parallel()
	s := newService(t, requireMFA)
	root := s.admin()
	e := s.want(s.call("POST", "/mfa/totp", root.AccessToken, nil), 201, "").Data
	refused := func(with fields) {
		t.Helper()
		s.want(s.call("POST", "/passkeys", root.AccessToken, with), 401, "reauth_required")
	}
	refused(fields{"password": goodPassword})
	refused(fields{"proof": s.prove(root.AccessToken, fields{"password": goodPassword})})
	code := s.mailedCode(root.AccessToken, root.email, 1)
	s.want(s.call("POST", "/reauthenticate", root.AccessToken, fields{"mailCode": code, "password": otherPassword}), 401, "current_password_invalid")
	byMail := s.prove(root.AccessToken, fields{"mailCode": code})
	refused(fields{"proof": byMail})
	refused(fields{"proof": "pwd-" + byMail}) // The methods are a part of the proof.
	s.want(s.call("POST", "/mfa/totp/"+e.FactorID+"/verify", root.AccessToken, fields{"code": s.code(e.Secret), "password": goodPassword}), 401, "reauth_required")
	s.want(s.call("POST", "/change-email", root.AccessToken, fields{"newEmail": "eve@example.com", "currentPassword": goodPassword}), 401, "reauth_required")
	body := `{"password":"` + goodPassword + `"}`
	if _, _, message := s.do("POST", base+"/passkeys", root.AccessToken, "application/json", body); !strings.Contains(string(message), "/reauthenticate/mail") {
		t.Errorf("the answer does not say what to do: %s", message)
	}

	both := s.prove(root.AccessToken, fields{"mailCode": s.mailedCode(root.AccessToken, root.email, 2), "password": goodPassword})
	s.newPasskey(root.userID, root.AccessToken, fields{"proof": both})

	// Other roles may use the password.
	ann := s.verified("ann@example.com").Data
	s.newPasskey(ann.User.ID, ann.Tokens.AccessToken, fields{"password": goodPassword})
}

// SEC-92: if a role needs a second factor and the account has one, only a proof with it adds
// or removes what can sign in: a thief of the password gets no second factor of their own.
func TestSEC92SecondFactorProtectsFactors(t *testing.T) {
	t.Parallel()
	s := newService(t, requireMFA)
	root := s.admin()
	both := s.prove(root.AccessToken, fields{"mailCode": s.mailedCode(root.AccessToken, root.email, 1), "password": goodPassword})
	id, key := s.newPasskey(root.userID, root.AccessToken, fields{"proof": both})

	thief := s.login(root.email).Data.Tokens
	refused := func(with fields) {
		t.Helper()
		s.want(s.call("POST", "/passkeys", thief.AccessToken, with), 401, "reauth_required")
	}
	refused(fields{"password": goodPassword})
	refused(fields{"proof": s.prove(thief.AccessToken, fields{"password": goodPassword})})
	mailCode := s.mailedCode(thief.AccessToken, root.email, 2)
	refused(fields{"proof": s.prove(thief.AccessToken, fields{"mailCode": mailCode, "password": goodPassword})})
	s.want(s.call("DELETE", "/passkeys/"+id, thief.AccessToken, fields{"password": goodPassword}), 401, "reauth_required")
	s.want(s.call("DELETE", "/password", thief.AccessToken, fields{"password": goodPassword}), 401, "reauth_required")
	s.want(s.call("POST", "/change-email", thief.AccessToken, fields{"newEmail": "eve@example.com", "currentPassword": goodPassword}), 401, "reauth_required")
	change := fields{"currentPassword": goodPassword, "newPassword": otherPassword, "removePasskeys": true}
	s.want(s.call("POST", "/change-password", thief.AccessToken, change), 401, "reauth_required")
	if c := s.claims(s.want(s.refresh(thief.RefreshToken), 200, "").Data.Tokens); c.ACR != token.AAL1 {
		t.Errorf("acr = %s, want %s", c.ACR, token.AAL1)
	}

	second, _ := s.newPasskey(root.userID, root.AccessToken, s.passkeyProof(root.AccessToken, key))
	s.want(s.call("DELETE", "/passkeys/"+second, root.AccessToken, s.passkeyProof(root.AccessToken, key)), 200, "")

	// A TOTP app and the password are two factors.
	e := s.want(s.call("POST", "/mfa/totp", root.AccessToken, nil), 201, "").Data
	confirm := s.passkeyProof(root.AccessToken, key)
	confirm["code"] = s.code(e.Secret)
	s.want(s.call("POST", "/mfa/totp/"+e.FactorID+"/verify", root.AccessToken, confirm), 200, "")
	s.advance(30 * time.Second)
	byCode := s.prove(root.AccessToken, fields{"password": goodPassword, "code": s.code(e.Secret)})
	s.want(s.call("POST", "/mfa/recovery-codes", root.AccessToken, fields{"proof": byCode}), 200, "")
	s.want(s.call("POST", "/change-password", root.AccessToken, change), 200, "")
}
