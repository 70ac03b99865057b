package api_test

import (
	"maps"
	"strings"
	"testing"

	"github.com/headgate/headgate/pkg/event"
)

// typings are ways in which people type six digits.
var typings = map[string]func(code string) string{
	"space within":      func(c string) string { return c[:3] + " " + c[3:] },
	"spaces around":     func(c string) string { return " " + c + " \n" },
	"hyphen":            func(c string) string { return c[:3] + "-" + c[3:] },
	"no-break space":    func(c string) string { return c[:3] + "\u00a0" + c[3:] },
	"line break":        func(c string) string { return c[:3] + "\r\n" + c[3:] },
	"full-width digits": func(c string) string { return strings.Map(func(r rune) rune { return r - '0' + '０' }, c) },
}

// SEC-144: a TOTP code is right in every way in which people type it.
func TestSEC144TOTPCodesAsTyped(t *testing.T) {
	t.Parallel()
	for name, typed := range typings {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newService(t)
			ann := s.signup("ann@example.com").Data.Tokens
			e := s.want(s.call("POST", "/mfa/totp", ann.AccessToken, nil), 201, "").Data
			s.want(s.call("POST", "/mfa/totp/"+e.FactorID+"/verify", ann.AccessToken, fields{"code": typed(s.code(e.Secret)), "password": goodPassword}), 200, "")
			s.advance(30e9)
			s.want(s.challenge(s.login("ann@example.com").Data.MFAToken, typed(s.code(e.Secret))), 200, "")
			s.advance(30e9)
			s.want(s.call("POST", "/reauthenticate", ann.AccessToken, fields{"password": goodPassword, "code": typed(s.code(e.Secret))}), 200, "")
		})
	}
}

// SEC-144: so are recovery codes and mailed codes.
func TestSEC144OtherCodesAsTyped(t *testing.T) {
	t.Parallel()
	s := newService(t)
	s.verified("ann@example.com")
	ann := s.login("ann@example.com").Data.Tokens
	_, _, recovery := s.enrol(ann.AccessToken)
	for i, typed := range []string{
		strings.ToUpper(strings.ReplaceAll(recovery[0], "-", " ")), strings.ReplaceAll(recovery[1], "-", ""), strings.ReplaceAll(recovery[2], "-", "–"),
	} {
		s.want(s.challenge(s.login("ann@example.com").Data.MFAToken, typed), 200, "")
		code := s.mailedCode(ann.AccessToken, "ann@example.com", i+1)
		s.want(s.call("POST", "/reauthenticate", ann.AccessToken, fields{
			"mailCode": []string{strings.ReplaceAll(code, "-", ""), strings.ReplaceAll(code, "-", " — "), " " + code + "\n"}[i], "code": recovery[i+3],
		}), 200, "")
	}
}

// SEC-144: what has not the shape of a code is a typing error. It costs no attempt and leaves
// nothing in the database.
func TestSEC144MalformedCodesCostNothing(t *testing.T) {
	t.Parallel()
	s := newService(t)
	s.verified("ann@example.com")
	ann := s.login("ann@example.com").Data.Tokens
	_, secret, _ := s.enrol(ann.AccessToken)
	waiting := s.login("ann@example.com").Data.MFAToken
	code := s.mailedCode(ann.AccessToken, "ann@example.com", 1)
	adding := s.want(s.call("POST", "/mfa/totp", ann.AccessToken, nil), 201, "").Data.FactorID
	before := s.rows()
	for _, malformed := range []string{"12345", "1234567", "12345a", "123/456", "-", "abcde-fghij", strings.Repeat("1", 1000)} {
		for range 3 {
			for path, body := range map[string]fields{
				"/mfa/challenge":                  {"mfaToken": waiting, "code": malformed},
				"/mfa/totp/" + adding + "/verify": {"code": malformed, "password": "not my password"},
				"/reauthenticate":                 {"code": malformed, "password": "not my password"},
				"/reauthenticate?":                {"code": s.code(secret), "mailCode": malformed},
			} {
				bearer := ann.AccessToken
				if path == "/mfa/challenge" {
					bearer = ""
				}
				a := s.want(s.call("POST", strings.TrimSuffix(path, "?"), bearer, body), 400, "validation_failed")
				if len(a.Errors) != 1 || a.Errors[0].Code != "invalid_format" {
					t.Fatalf("%s with %q = %v", path, malformed, a.Errors)
				}
			}
		}
	}
	if after := s.rows(); !maps.Equal(before, after) {
		t.Errorf("rows = %v, before %v", after, before)
	}
	if err := s.refusals.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.wantCount(event.Audit, event.MFAChallengeFailed{}, 0)
	s.want(s.call("POST", "/reauthenticate", ann.AccessToken, fields{"mailCode": code, "code": s.code(secret)}), 200, "")
	s.advance(30e9)
	s.want(s.challenge(waiting, s.code(secret)), 200, "")
}

// SEC-144: the token of a link is copied by hand as well, from a mail that may have broken it
// into lines.
func TestSEC144LinkTokensAsPasted(t *testing.T) {
	t.Parallel()
	for name, pasted := range map[string]func(token string) string{
		"spaces around":  func(token string) string { return " " + token + "\n" },
		"line break":     func(token string) string { return token[:20] + "\r\n" + token[20:] },
		"soft break":     func(token string) string { return token[:20] + "=\r\n" + token[20:] },
		"no-break space": func(token string) string { return token + "\u00a0" },
		"zero width":     func(token string) string { return "\u200b" + token + "\ufeff" },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newService(t)
			s.signup("ann@example.com")
			token := s.link(event.UserVerificationRequested{}, "ann@example.com", 1)
			s.want(s.call("POST", "/verify-email", "", fields{"token": token[:42], "password": goodPassword}), 400, "token_invalid")
			s.want(s.call("POST", "/verify-email", "", fields{"token": pasted(token), "password": goodPassword}), 200, "")
		})
	}
}

// SEC-144: an address is pasted with what surrounds it.
func TestSEC144AddressesAsPasted(t *testing.T) {
	t.Parallel()
	s := newService(t)
	s.signup("ann@example.com")
	for _, typed := range []string{" ann@example.com\n", "\u00a0Ann@Example.com", "\u200bann@example.com\ufeff", "\u202aann@example.com\u202c"} {
		s.login(typed)
	}
}
