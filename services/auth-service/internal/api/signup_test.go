package api_test

import (
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/google/uuid"

	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/services/auth-service/internal/account"
)

func TestSignup(t *testing.T) {
	t.Parallel()
	s := newService(t)
	a := s.signup(" Ann@Example.COM ")
	u := a.Data.User
	if u.Email != "Ann@example.com" || u.Name != "Ann" || u.Role != "user" || u.Status != "active" || u.EmailVerified || uuid.Validate(u.ID) != nil {
		t.Errorf("user = %+v", u)
	}
	tk := a.Data.Tokens
	if tk.TokenType != "Bearer" || tk.ExpiresIn != 900 || tk.RefreshToken == "" || uuid.Validate(tk.SessionID) != nil {
		t.Errorf("tokens = %+v", tk)
	}
	if a.header.Get("Cache-Control") != "no-store" {
		t.Errorf("Cache-Control = %q", a.header.Get("Cache-Control"))
	}
	if got := s.call("GET", "/sessions", tk.AccessToken, nil); got.status != 200 || len(got.List) != 1 || !got.List[0].Current || got.List[0].ID != tk.SessionID {
		t.Errorf("sessions = %+v", got)
	}
	s.want(s.call("POST", "/signup", "", fields{"email": "ann@example.com", "password": goodPassword, "name": "B"}), http.StatusConflict, "email_taken")

	if got, want := names(s.events(event.Audit)), []string{"user.signed_up", "request.refused"}; !slices.Equal(got, want) {
		t.Errorf("audit events = %v, want %v", got, want)
	}
	signedUp := s.events(event.User)[0]
	if signedUp.Subject != u.ID || signedUp.Actor.ID != u.ID || signedUp.RequestID != a.header.Get("X-Request-Id") || signedUp.IP != "127.0.0.1" {
		t.Errorf("event = %+v", signedUp)
	}
}

func TestSEC21To25And49SignupIsValidated(t *testing.T) {
	t.Parallel()
	s := newService(t)
	for name, tc := range map[string]struct {
		change      fields
		code, field string
	}{
		"no email":                   {fields{"email": ""}, "validation_failed", "email"},
		"no at":                      {fields{"email": "example.com"}, "validation_failed", "email"},
		"two ats":                    {fields{"email": "a@b@example.com"}, "validation_failed", "email"},
		"quoted local part":          {fields{"email": `"a b"@example.com`}, "validation_failed", "email"},
		"SEC-23 NUL in email":        {fields{"email": "a\x00b@example.com"}, "validation_failed", "email"},
		"SEC-62 header injection":    {fields{"email": "a@example.com\r\nBcc: b@example.com"}, "validation_failed", "email"},
		"SEC-25 Kelvin sign":         {fields{"email": "mi\u212ae@example.com"}, "validation_failed", "email"},
		"no dot in domain":           {fields{"email": "a@localhost"}, "validation_failed", "email"},
		"long email":                 {fields{"email": strings.Repeat("a", 250) + "@example.com"}, "validation_failed", "email"},
		"no password":                {fields{"password": ""}, "validation_failed", "password"},
		"short password":             {fields{"password": "abc1234"}, "validation_failed", "password"},
		"short in code points":       {fields{"password": "äöüäöü7"}, "validation_failed", "password"},
		"SEC-23 NUL in password":     {fields{"password": "abcdefgh\x00ijk"}, "validation_failed", "password"},
		"SEC-22 long password":       {fields{"password": strings.Repeat("ab", 513)}, "validation_failed", "password"},
		"common password":            {fields{"password": "Password1"}, "weak_password", ""},
		"repeated password":          {fields{"password": "aaaaaaaaaaaa"}, "weak_password", ""},
		"password is the address":    {fields{"password": "Ann@example.com"}, "weak_password", ""},
		"no name":                    {fields{"name": " "}, "validation_failed", "name"},
		"long name":                  {fields{"name": strings.Repeat("ä", 101)}, "validation_failed", "name"},
		"name with a line break":     {fields{"name": "Ann\r\nBcc: x"}, "validation_failed", "name"},
		"SEC-49 role":                {fields{"role": "admin"}, "validation_failed", "role"},
		"SEC-49 email verified":      {fields{"emailVerified": true}, "validation_failed", "emailVerified"},
		"password of the wrong type": {fields{"password": 12345678}, "validation_failed", "password"},
		"email of the wrong type":    {fields{"email": []string{"a@example.com"}}, "validation_failed", "email"},
	} {
		t.Run(name, func(t *testing.T) {
			body := fields{"email": "ann@example.com", "password": goodPassword, "name": "Ann"}
			maps.Copy(body, tc.change)
			a := s.call("POST", "/signup", "", body)
			if a.status != 400 || a.Code != tc.code || tc.field != "" && (len(a.Errors) == 0 || a.Errors[0].Field != tc.field) {
				t.Errorf("= %d %q %+v, want 400 %q for %q", a.status, a.Code, a.Errors, tc.code, tc.field)
			}
		})
	}
	if got := names(s.events(event.Audit)); slices.Contains(got, "user.signed_up") {
		t.Errorf("audit = %v", got)
	}
}

func TestSEC25EquivalentAddresses(t *testing.T) {
	t.Parallel()
	s := newService(t)
	s.signup("bob@exämple.de")
	for _, same := range []string{"BOB@exämple.de", "bob@xn--exmple-cua.de", "bob@EXÄMPLE.de"} {
		a := s.call("POST", "/signup", "", fields{"email": same, "password": goodPassword, "name": "B"})
		s.want(a, http.StatusConflict, "email_taken")
	}
}

// SEC-27: only the owner of an address learns whether it has an account.
func TestSEC27StrictSignUp(t *testing.T) {
	t.Parallel()
	s := newService(t, func(cfg *account.Config) { cfg.Mode = account.SignUpStrict })
	in := fields{"email": "ann@example.com", "password": goodPassword, "name": "Ann"}
	if got := s.parallel("/signup", in); got["202 "] != 20 {
		t.Fatalf("answers = %v", got)
	}
	s.wantServed()
	// Each replaces the one before, until the address has got three mails.
	if signedUp, deleted := s.count(event.User, event.UserSignedUp{}), s.count(event.User, event.UserDeleted{}); signedUp != 3 || deleted != 2 {
		t.Errorf("%d accounts, %d of them replaced, want 3 and 2", signedUp, deleted)
	}
	s.want(s.call("POST", "/signup", "", fields{"email": "bob@example.com", "password": "short", "name": "Bob"}), 400, "validation_failed")
	s.verify("ann@example.com", 3, goodPassword)
	for range 5 {
		s.want(s.call("POST", "/signup", "", in), 202, "")
	}
	s.wantServed()
	s.wantCount(event.Email, event.UserSignUpRepeated{}, 3)
	tokens := s.login("ann@example.com").Data.Tokens
	// The answer for a taken address is the same as for an available one.
	s.want(s.call("POST", "/signup", "", fields{"email": "eve@example.com", "password": goodPassword, "name": "Eve"}), 202, "")
	s.wantServed()
	s.want(s.call("POST", "/change-email", tokens.AccessToken, fields{"newEmail": "eve@example.com", "currentPassword": goodPassword}), 202, "")
	if got := s.links(event.UserEmailChangeLinkIssued{}, "eve@example.com"); len(got) != 0 {
		t.Error("a taken address got a link to claim it")
	}
}

func TestClosedSignUp(t *testing.T) {
	t.Parallel()
	s := newService(t, func(cfg *account.Config) { cfg.Mode = account.SignUpClosed })
	s.want(s.call("POST", "/signup", "", fields{"email": "ann@example.com", "password": goodPassword, "name": "Ann"}), 403, "signup_closed")
	s.admin() // Administrators can still be created.
}
