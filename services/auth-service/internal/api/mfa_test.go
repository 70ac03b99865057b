package api_test

import (
	"encoding/json"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pquerna/otp/totp"

	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/services/auth-service/internal/account"
)

// code returns what an authenticator app shows now.
func (s *service) code(secret string) string {
	s.t.Helper()
	code, err := totp.GenerateCode(secret, s.time())
	if err != nil {
		s.t.Fatal(err)
	}
	return code
}

// enrol gives somebody who is signed in a second factor.
func (s *service) enrol(bearer string) (id, secret string, recovery []string) {
	s.t.Helper()
	e := s.want(s.call("POST", "/mfa/totp", bearer, nil), 201, "").Data
	recovery = s.want(s.call("POST", "/mfa/totp/"+e.FactorID+"/verify", bearer, fields{"code": s.code(e.Secret)}), 200, "").Data.RecoveryCodes
	s.advance(30 * time.Second) // The step is used up.
	return e.FactorID, e.Secret, recovery
}

func (s *service) challenge(mfaToken, code string) answer {
	s.t.Helper()
	return s.call("POST", "/mfa/challenge", "", fields{"mfaToken": mfaToken, "code": code})
}

// TestSEC35TOTP is SEC-35.
func TestSEC35TOTP(t *testing.T) {
	t.Parallel()
	s := newService(t)
	ann := s.signup("ann@example.com").Data.Tokens
	e := s.want(s.call("POST", "/mfa/totp", ann.AccessToken, nil), 201, "").Data
	if u, err := url.Parse(e.OTPAuthURL); err != nil || u.Scheme != "otpauth" || u.Query().Get("secret") != e.Secret || len(e.Secret) != 32 {
		t.Errorf("enrolment = %+v", e)
	}
	if s.login("ann@example.com").Data.MFAToken != "" {
		t.Error("a factor that is not confirmed is asked for")
	}
	s.want(s.call("POST", "/mfa/totp/"+e.FactorID+"/verify", ann.AccessToken, fields{"code": "000000"}), 401, "mfa_code_invalid")
	s.want(s.call("POST", "/mfa/totp/nonsense/verify", ann.AccessToken, fields{"code": "000000"}), 404, "factor_not_found")
	code := s.code(e.Secret)
	recovery := s.want(s.call("POST", "/mfa/totp/"+e.FactorID+"/verify", ann.AccessToken, fields{"code": code}), 200, "").Data.RecoveryCodes
	if len(recovery) != 10 || len(strings.ReplaceAll(recovery[0], "-", "")) != 24 {
		t.Errorf("recovery codes = %q", recovery)
	}

	in := s.login("ann@example.com").Data
	if in.Status != "mfa_required" || in.MFAToken == "" || in.Tokens.AccessToken != "" || in.ExpiresIn != 300 || string(in.Factors) != `["totp","recovery_code"]` {
		t.Errorf("login = %+v, factors %s", in, in.Factors)
	}
	s.want(s.call("GET", "/sessions", in.MFAToken, nil), 401, "token_invalid") // It is for one thing.
	s.want(s.challenge(in.MFAToken, code), 401, "mfa_code_invalid")            // That step was used to confirm.
	s.advance(30 * time.Second)
	if got := s.parallel("/mfa/challenge", fields{"mfaToken": in.MFAToken, "code": s.code(e.Secret)}); got["200 "] != 1 || got["200 "]+got["410 mfa_token_expired"]+got["401 mfa_code_invalid"]+got["429 rate_limited"] != 20 {
		t.Errorf("20 parallel uses of a code = %v", got)
	}
	s.want(s.challenge(in.MFAToken, s.code(e.Secret)), 410, "mfa_token_expired")

	// One step of a wrong clock is forgiven, two are not.
	s.advance(25 * time.Hour) // The failures are forgotten.
	in = s.login("ann@example.com").Data
	early, err := totp.GenerateCode(e.Secret, s.time().Add(61*time.Second))
	if err != nil {
		t.Fatal(err)
	}
	s.want(s.challenge(in.MFAToken, early), 401, "mfa_code_invalid")
	next, err := totp.GenerateCode(e.Secret, s.time().Add(30*time.Second))
	if err != nil {
		t.Fatal(err)
	}
	if got := s.want(s.challenge(in.MFAToken, next), 200, "").Data; !got.User.MFAEnabled || got.Tokens.AccessToken == "" {
		t.Errorf("signed in = %+v", got)
	}
	var secret string
	if err := s.db.QueryRow(t.Context(), `SELECT secret FROM factors`).Scan(&secret); err != nil || strings.Contains(secret, e.Secret) {
		t.Errorf("the secret is stored as %q, %v", secret, err)
	}
}

// A sign-in has five tries; and all sign-ins of an account together are slowed.
func TestSEC35GuessingCodes(t *testing.T) {
	t.Parallel()
	s := newService(t)
	_, secret, _ := s.enrol(s.signup("ann@example.com").Data.Tokens.AccessToken)
	in := s.login("ann@example.com").Data
	for range 5 {
		s.want(s.challenge(in.MFAToken, "000000"), 401, "mfa_code_invalid")
	}
	s.want(s.challenge(in.MFAToken, s.code(secret)), 410, "mfa_token_expired")
	in = s.login("ann@example.com").Data
	for range 4 {
		s.want(s.challenge(in.MFAToken, "000000"), 401, "mfa_code_invalid")
	}
	in = s.login("ann@example.com").Data
	s.want(s.challenge(in.MFAToken, "000000"), 429, "rate_limited")
	s.advance(20 * time.Second)
	s.want(s.challenge(in.MFAToken, s.code(secret)), 200, "")
	in = s.login("ann@example.com").Data
	s.advance(5*time.Minute + time.Second)
	s.want(s.challenge(in.MFAToken, s.code(secret)), 410, "mfa_token_expired")
	s.want(s.challenge("nonsense", "000000"), 410, "mfa_token_expired")
}

func TestSEC35RecoveryCodes(t *testing.T) {
	t.Parallel()
	s := newService(t)
	ann := s.signup("ann@example.com").Data.Tokens
	_, _, recovery := s.enrol(ann.AccessToken)
	use := func(code string) answer { return s.challenge(s.login("ann@example.com").Data.MFAToken, code) }
	s.want(use(strings.ToUpper(strings.ReplaceAll(recovery[0], "-", " "))), 200, "")
	s.want(use(recovery[0]), 401, "mfa_code_invalid")
	in := s.login("ann@example.com").Data
	if got := s.parallel("/mfa/challenge", fields{"mfaToken": in.MFAToken, "code": recovery[1]}); got["200 "] != 1 {
		t.Errorf("20 parallel uses of a recovery code = %v", got)
	}
	fresh := s.want(s.call("POST", "/mfa/recovery-codes", ann.AccessToken, nil), 200, "").Data.RecoveryCodes
	if len(fresh) != 10 || slices.Contains(fresh, recovery[2]) {
		t.Errorf("new codes = %q", fresh)
	}
	s.advance(25 * time.Hour) // The failures are forgotten.
	s.want(use(recovery[2]), 401, "mfa_code_invalid")
	s.want(use(fresh[0]), 200, "")
	if got := s.count(event.Audit, event.MFARecoveryCodeUsed{}); got != 3 {
		t.Errorf("%d uses were recorded, want 3", got)
	}
}

// TestSEC36Reauthentication is SEC-36: an old session is no proof, and with a second
// factor the password alone is none.
func TestSEC36Reauthentication(t *testing.T) {
	t.Parallel()
	s := newService(t)
	ann := s.signup("ann@example.com").Data.Tokens
	s.advance(16 * time.Minute)
	ann = s.want(s.refresh(ann.RefreshToken), 200, "").Data.Tokens
	s.want(s.call("POST", "/mfa/totp", ann.AccessToken, nil), 401, "reauth_required")
	s.want(s.call("POST", "/reauthenticate", ann.AccessToken, fields{"password": "not my password"}), 401, "current_password_invalid")
	s.want(s.call("POST", "/reauthenticate", ann.AccessToken, fields{"password": goodPassword}), 200, "")
	id, secret, _ := s.enrol(ann.AccessToken)

	s.advance(16 * time.Minute)
	ann = s.want(s.refresh(ann.RefreshToken), 200, "").Data.Tokens
	remove := func() answer {
		return s.call("DELETE", "/mfa/totp/"+id, ann.AccessToken, fields{"password": goodPassword})
	}
	s.want(remove(), 401, "reauth_required")
	for path, body := range map[string]fields{
		"/change-password": {"currentPassword": goodPassword, "newPassword": otherPassword},
		"/change-email":    {"currentPassword": goodPassword, "newEmail": "new@example.com"},
	} {
		s.want(s.call("POST", path, ann.AccessToken, body), 401, "reauth_required")
	}
	s.want(s.call("DELETE", "/account", ann.AccessToken, fields{"password": goodPassword}), 401, "reauth_required")
	s.want(s.call("POST", "/reauthenticate", ann.AccessToken, fields{"password": goodPassword}), 400, "validation_failed")
	s.want(s.call("POST", "/reauthenticate", ann.AccessToken, fields{"password": goodPassword, "code": "000000"}), 401, "mfa_code_invalid")
	s.want(s.call("POST", "/reauthenticate", ann.AccessToken, fields{"password": goodPassword, "code": s.code(secret)}), 200, "")

	var list struct {
		Factors []struct{ ID, Kind string }
		Left    int `json:"recoveryCodesLeft"`
	}
	_, _, body := s.do("GET", base+"/mfa/factors", ann.AccessToken, "", "")
	if err := json.Unmarshal(body, &struct{ Data any }{&list}); err != nil || len(list.Factors) != 1 || list.Factors[0].ID != id || list.Left != 10 {
		t.Errorf("factors = %s, %v", body, err)
	}
	s.want(s.call("DELETE", "/mfa/totp/nonsense", ann.AccessToken, fields{"password": goodPassword}), 404, "factor_not_found")
	s.want(remove(), 200, "")
	s.want(remove(), 404, "factor_not_found")
	if s.login("ann@example.com").Data.Tokens.AccessToken == "" {
		t.Error("a factor that is gone is asked for")
	}
	for topic, kinds := range map[event.Topic][]event.Payload{
		event.Audit: {event.MFAEnrolled{}, event.MFARemoved{}, event.MFAChallengeFailed{}, event.MFARecoveryCodesMade{}},
		event.Email: {event.MFAEnrolled{}, event.MFARemoved{}},
	} {
		for _, kind := range kinds {
			if got := s.count(topic, kind); got != 1 {
				t.Errorf("%d events %s on %s, want 1", got, kind.EventName(), topic)
			}
		}
	}
}

// A reset of the password by mail is no way around the second factor (SEC-30).
func TestSEC30ResetKeepsTheSecondFactor(t *testing.T) {
	t.Parallel()
	s := newService(t)
	s.enrol(s.signup("ann@example.com").Data.Tokens.AccessToken)
	s.forgot("ann@example.com")
	s.want(s.call("POST", "/reset-password", "", fields{"token": s.link(event.UserResetLinkIssued{}, "ann@example.com", 1), "newPassword": otherPassword}), 200, "")
	if in := s.want(s.try("ann@example.com", otherPassword), 200, "").Data; in.MFAToken == "" || in.Tokens.AccessToken != "" {
		t.Errorf("login = %+v, want the question for the second factor", in)
	}
}

func TestAdministratorResetsFactors(t *testing.T) {
	t.Parallel()
	s := newService(t)
	root := s.admin()
	ann := s.signup("ann@example.com").Data
	s.enrol(ann.Tokens.AccessToken)
	s.want(s.call("POST", "/users/"+ann.User.ID+"/reset-mfa", root.AccessToken, nil), 200, "")
	s.want(s.call("GET", "/sessions", ann.Tokens.AccessToken, nil), 401, "session_revoked")
	if in := s.login("ann@example.com").Data; in.Tokens.AccessToken == "" || in.User.MFAEnabled {
		t.Errorf("login = %+v", in)
	}
	s.want(s.call("POST", "/users/nobody/reset-mfa", root.AccessToken, nil), 404, "account_not_found")
}

// Where the host has no name, everything but passkeys works.
func TestNoPasskeysWithoutAName(t *testing.T) {
	t.Parallel()
	s := newService(t, func(cfg *account.Config) { cfg.Passkeys = nil })
	ann := s.signup("ann@example.com").Data.Tokens
	s.want(s.call("POST", "/passkeys", ann.AccessToken, nil), 404, "passkeys_unavailable")
	s.want(s.call("POST", "/passkeys/login", "", nil), 404, "passkeys_unavailable")
}
