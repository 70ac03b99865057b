package api_test

import (
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pquerna/otp/totp"

	"github.com/headgate/headgate/pkg/event"
)

// A login that waits for its second factor ends when the password is replaced.
func TestSEC14ChallengeEndsWithThePassword(t *testing.T) {
	t.Parallel()
	s := newService(t)
	s.verified("ann@example.com")
	ann := s.login("ann@example.com").Data
	_, secret, _ := s.enrol(ann.Tokens.AccessToken)
	waiting := s.login("ann@example.com").Data // with the old password
	s.forgot("ann@example.com")
	reset := s.link(event.UserResetLinkIssued{}, "ann@example.com", 1)
	s.want(s.call("POST", "/reset-password", "", fields{"token": reset, "newPassword": otherPassword}), 200, "")
	s.advance(time.Minute)
	s.want(s.challenge(waiting.MFAToken, s.code(secret)), 410, "mfa_token_expired")
}

// SEC-35: enrolment of TOTP and login with it.
func TestSEC35TOTP(t *testing.T) {
	t.Parallel()
	s := newService(t)
	ann := s.signup("ann@example.com").Data.Tokens
	e := s.want(s.call("POST", "/mfa/totp", ann.AccessToken, nil), 201, "").Data
	if u, err := url.Parse(e.OTPAuthURL); err != nil || u.Scheme != "otpauth" || u.Query().Get("secret") != e.Secret || len(e.Secret) != 32 {
		t.Errorf("enrolment = %+v", e)
	}
	if s.login("ann@example.com").Data.MFAToken != "" {
		t.Error("login asks for an unconfirmed factor")
	}
	s.want(s.call("POST", "/mfa/totp/"+e.FactorID+"/verify", ann.AccessToken, fields{"code": "000000", "password": goodPassword}), 401, "mfa_code_invalid")
	s.want(s.call("POST", "/mfa/totp/nonsense/verify", ann.AccessToken, fields{"code": "000000", "password": goodPassword}), 404, "factor_not_found")
	code := s.code(e.Secret)
	recovery := s.want(s.call("POST", "/mfa/totp/"+e.FactorID+"/verify", ann.AccessToken, fields{"code": code, "password": goodPassword}), 200, "").Data.RecoveryCodes
	if len(recovery) != 10 || len(strings.ReplaceAll(recovery[0], "-", "")) != 24 {
		t.Errorf("recovery codes = %q", recovery)
	}

	in := s.login("ann@example.com").Data
	if in.Status != "mfa_required" || in.MFAToken == "" || in.Tokens.AccessToken != "" || in.ExpiresIn != 300 || string(in.Factors) != `["totp","recovery_code"]` {
		t.Errorf("login = %+v, factors %s", in, in.Factors)
	}
	s.want(s.call("GET", "/sessions", in.MFAToken, nil), 401, "token_invalid") // It is not an access token.
	s.want(s.challenge(in.MFAToken, code), 401, "mfa_code_invalid")            // It was used to confirm the factor.
	s.advance(30 * time.Second)
	if got := s.parallel("/mfa/challenge", fields{"mfaToken": in.MFAToken, "code": s.code(e.Secret)}); got["200 "] != 1 || got["200 "]+got["410 mfa_token_expired"]+got["401 mfa_code_invalid"]+got["429 rate_limited"] != 20 {
		t.Errorf("20 parallel uses of a code = %v", got)
	}
	s.want(s.challenge(in.MFAToken, s.code(e.Secret)), 410, "mfa_token_expired")

	// A clock may be off by one step, but not by two.
	s.advance(25 * time.Hour) // Clear the failed attempts.
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

// A challenge has five attempts, and failed attempts count across all challenges.
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
	for range 5 {
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
	fresh := s.want(s.call("POST", "/mfa/recovery-codes", ann.AccessToken, fields{"proof": s.prove(ann.AccessToken, fields{"password": goodPassword, "code": recovery[3]})}), 200, "").Data.RecoveryCodes
	if len(fresh) != 10 || slices.Contains(fresh, recovery[2]) {
		t.Errorf("new codes = %q", fresh)
	}
	s.advance(25 * time.Hour) // Clear the failed attempts.
	s.want(use(recovery[2]), 401, "mfa_code_invalid")
	s.want(use(fresh[0]), 200, "")
	if got := s.count(event.Audit, event.MFARecoveryCodeUsed{}); got != 4 {
		t.Errorf("%d uses were recorded, want 4", got)
	}
}
