package api_test

import (
	"encoding/json"
	"fmt"
	"testing"

	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/services/auth-service/internal/factor/factortest"
)

// occurrences returns how many requests an event stands for.
func occurrences(t *testing.T, e event.Event) int {
	t.Helper()
	var counted struct{ Count int }
	if err := json.Unmarshal(e.Data, &counted); err != nil {
		t.Fatal(err)
	}
	return max(1, counted.Count)
}

// occurrences returns how many requests the audit log has of a kind, with those that are
// only counted so far.
func (s *service) occurrences(kind event.Payload) (n int) {
	s.t.Helper()
	if err := s.refusals.Flush(s.t.Context()); err != nil {
		s.t.Fatal(err)
	}
	for _, e := range s.events(event.Audit) {
		if e.Name == kind.EventName() {
			n += occurrences(s.t, e)
		}
	}
	return n
}

// Every request that a stranger can repeat, and that is refused or about nobody's account,
// leaves two records a minute at most, whatever it contains.
func TestSEC112StrangersCannotFillTheAuditLog(t *testing.T) {
	t.Parallel()
	s := newService(t)
	ann := s.signup("ann@example.com").Data
	key := factortest.New(t, ann.User.ID, "localhost", "http://localhost")
	begun := s.want(s.call("POST", "/passkeys/login", "", nil), 200, "").Data
	email := func(i int) string { return fmt.Sprintf("nobody%d@example.com", i) }
	junk := func(i int) string { return fmt.Sprintf("junk %d", i) }
	requests := map[string]func(i int) (path string, body fields){
		"login": func(i int) (string, fields) { return "/login", fields{"email": email(i), "password": goodPassword} },
		"sign-up": func(int) (string, fields) {
			return "/signup", fields{"email": "ann@example.com", "password": goodPassword, "name": "Ann"}
		},
		"refresh": func(i int) (string, fields) { return "/refresh", fields{"refreshToken": junk(i)} },
		"verify":  func(i int) (string, fields) { return "/verify-email", fields{"token": junk(i)} },
		"reset": func(i int) (string, fields) {
			return "/reset-password", fields{"token": junk(i), "newPassword": goodPassword}
		},
		"confirm":   func(i int) (string, fields) { return "/change-email/confirm", fields{"token": junk(i)} },
		"revert":    func(i int) (string, fields) { return "/change-email/revert", fields{"token": junk(i)} },
		"challenge": func(i int) (string, fields) { return "/mfa/challenge", fields{"mfaToken": junk(i), "code": "123456"} },
		"passkey token": func(i int) (string, fields) {
			return "/passkeys/login/finish", fields{"passkeyToken": junk(i), "credential": key.Login(begun.Options)}
		},
		"passkey": func(i int) (string, fields) {
			return "/passkeys/login/finish", fields{"passkeyToken": begun.PasskeyToken, "credential": fields{"id": junk(i)}}
		},
		"forgot": func(i int) (string, fields) { return "/forgot-password", fields{"email": email(i)} },
		"resend": func(i int) (string, fields) { return "/resend-verification", fields{"email": email(i)} },
	}
	const times = 10
	before := len(s.events(event.Audit))
	for _, request := range requests {
		for i := range times {
			path, body := request(i)
			s.call("POST", path, "", body)
		}
	}
	for range times {
		body := `{"policy":"login-ip","limit":40,"windowSeconds":900,"method":"POST","route":"/api/v1/auth/login"}`
		if status, _, answer := s.do("POST", event.RateLimitsPath+"/exceeded", "", "application/json", body); status != 202 {
			t.Fatalf("report = %d %s", status, answer)
		}
	}
	s.wantServed()
	kinds := len(requests) + 1
	if n := len(s.events(event.Audit)) - before; n > kinds {
		t.Errorf("%d requests left %d records at once, want at most %d: %v", kinds*times, n, kinds, names(s.events(event.Audit)[before:]))
	}
	if err := s.refusals.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	records, total := s.events(event.Audit)[before:], 0
	for _, e := range records {
		total += occurrences(t, e)
	}
	if len(records) > 2*kinds || total != kinds*times {
		t.Errorf("%d records of %d requests, want at most %d of %d", len(records), total, 2*kinds, kinds*times)
	}
}

// Every refused request that a signed-in user can repeat without waiting leaves two records a
// minute at most, whatever it contains.
func TestSEC109UsersCannotFillTheAuditLog(t *testing.T) {
	t.Parallel()
	s := newService(t)
	ann := s.signup("ann@example.com").Data
	bearer := ann.Tokens.AccessToken
	key := factortest.New(t, ann.User.ID, "localhost", "http://localhost")
	reauth := s.want(s.call("POST", "/reauthenticate/passkey", bearer, nil), 200, "").Data
	adding := s.want(s.call("POST", "/passkeys", bearer, fields{"password": goodPassword}), 201, "").Data
	totp := s.want(s.call("POST", "/mfa/totp", bearer, nil), 201, "").Data
	junk := func(i int) string { return fmt.Sprintf("junk %d", i) }
	requests := map[string]func(i int) (method, path string, body fields){
		"access": func(i int) (string, string, fields) { return "GET", "/users?q=" + fmt.Sprint("junk", i), nil },
		"passkey token": func(i int) (string, string, fields) {
			return "POST", "/reauthenticate/passkey/finish", fields{"passkeyToken": junk(i), "credential": key.Login(reauth.Options)}
		},
		"passkey": func(i int) (string, string, fields) {
			return "POST", "/reauthenticate/passkey/finish", fields{"passkeyToken": reauth.PasskeyToken, "credential": fields{"id": junk(i)}}
		},
		"unknown passkey": func(int) (string, string, fields) {
			return "POST", "/reauthenticate/passkey/finish", fields{"passkeyToken": reauth.PasskeyToken, "credential": key.Login(reauth.Options)}
		},
		"new passkey": func(i int) (string, string, fields) {
			return "POST", "/passkeys/finish", fields{"passkeyToken": adding.PasskeyToken, "credential": fields{"id": junk(i)}}
		},
		"new factor": func(i int) (string, string, fields) {
			return "POST", "/mfa/totp/" + totp.FactorID + "/verify", fields{"code": fmt.Sprintf("%06d", i), "password": goodPassword}
		},
	}
	const times = 20
	before := len(s.events(event.Audit))
	for _, request := range requests {
		for i := range times {
			method, path, body := request(i)
			if a := s.call(method, path, bearer, body); a.status < 400 || a.status >= 500 {
				t.Fatalf("%s %s = %+v", method, path, a)
			}
		}
	}
	// After a few wrong passwords, further ones are refused until a delay has passed.
	wrong := func() answer {
		return s.call("POST", "/reauthenticate", bearer, fields{"password": "wrong horse battery"})
	}
	for range 10 {
		s.want(wrong(), 401, "current_password_invalid")
	}
	for range times {
		s.want(wrong(), 429, "rate_limited")
	}
	records := s.events(event.Audit)[before:]
	if want := len(requests) + 10 + 1; len(records) > want {
		t.Errorf("%d records at once, want at most %d: %v", len(records), want, names(records))
	}
	if err := s.refusals.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	records, total := s.events(event.Audit)[before:], 0
	for _, e := range records {
		total += occurrences(t, e)
		if e.Subject != ann.User.ID {
			t.Errorf("%s is about %q", e.Name, e.Subject)
		}
	}
	if want := len(requests)*times + 10 + times; total != want {
		t.Errorf("%d requests are recorded, want %d", total, want)
	}
}
