package api_test

import (
	"errors"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/pkg/outbox"
	"github.com/headgate/headgate/services/auth-service/internal/account"
	"github.com/headgate/headgate/services/auth-service/internal/signing"
	"github.com/headgate/headgate/services/auth-service/internal/store"
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

// TestSEC65NothingSecretIsStoredOrSent is SEC-65: the outbox is read by Redis, the
// audit log and whoever can look at them.
func TestSEC65NothingSecretIsStoredOrSent(t *testing.T) {
	t.Parallel()
	s := newService(t)
	a := s.signup("ann@example.com")
	link := s.link(event.UserVerificationRequested{}, "ann@example.com", 1)
	s.forgot("ann@example.com")
	reset := s.link(event.UserResetLinkIssued{}, "ann@example.com", 1)
	s.want(s.call("POST", "/login", "", fields{"email": "ann@example.com", "password": "wrong but long"}), 401, "invalid_credentials")
	var dump string
	err := s.db.QueryRow(t.Context(), `
		SELECT (SELECT string_agg(payload::text, '') FROM outbox) ||
			(SELECT string_agg(t::text, '') FROM one_time_tokens t) ||
			(SELECT string_agg(s::text, '') FROM sessions s) ||
			(SELECT string_agg(a::text, '') FROM accounts a) ||
			(SELECT string_agg(k::text, '') FROM signing_keys k)`).Scan(&dump)
	if err != nil {
		t.Fatal(err)
	}
	for _, secret := range []string{goodPassword, "wrong but long", a.Data.Tokens.AccessToken, a.Data.Tokens.RefreshToken, link, reset, "PRIVATE KEY"} {
		if strings.Contains(dump, secret) {
			t.Errorf("the database holds %q in the clear", secret)
		}
	}
}

func TestSEC21To25And49SignupRefuses(t *testing.T) {
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

func TestSEC25TheSameAddressInAnotherForm(t *testing.T) {
	t.Parallel()
	s := newService(t)
	s.signup("bob@exämple.de")
	for _, same := range []string{"BOB@exämple.de", "bob@xn--exmple-cua.de", "bob@EXÄMPLE.de"} {
		a := s.call("POST", "/signup", "", fields{"email": same, "password": goodPassword, "name": "B"})
		s.want(a, http.StatusConflict, "email_taken")
	}
}

func TestLogin(t *testing.T) {
	t.Parallel()
	s := newService(t)
	s.signup("ann@example.com")
	a := s.want(s.call("POST", "/login", "", fields{"email": "ANN@example.com", "password": goodPassword, "deviceName": "Laptop"}), 200, "")
	if list := s.call("GET", "/sessions", a.Data.Tokens.AccessToken, nil).List; len(list) != 2 || list[0].DeviceName != "Laptop" || !list[0].Current || list[1].Current {
		t.Errorf("sessions = %+v", list)
	}
	for name, in := range map[string]fields{
		"wrong password": {"email": "ann@example.com", "password": "wrong password"},
		"unknown":        {"email": "nobody@example.com", "password": goodPassword},
		"SEC-22 longer":  {"email": "ann@example.com", "password": goodPassword + "x"},
	} {
		if a := s.call("POST", "/login", "", in); a.status != 401 || a.Code != "invalid_credentials" {
			t.Errorf("%s = %d %s", name, a.status, a.Code)
		}
	}
	if _, err := s.db.Exec(t.Context(), `UPDATE accounts SET status = 'disabled'`); err != nil {
		t.Fatal(err)
	}
	s.want(s.call("POST", "/login", "", fields{"email": "ann@example.com", "password": goodPassword}), 403, "account_disabled")
	s.want(s.call("POST", "/login", "", fields{"email": "ann@example.com", "password": "wrong password"}), 401, "invalid_credentials")
	s.want(s.refresh(a.Data.Tokens.RefreshToken), 401, "session_revoked")

	got := names(s.events(event.Audit))
	want := []string{"user.signed_up", "user.logged_in"}
	for range 5 {
		want = append(want, "user.login_failed")
	}
	want = append(want, "request.refused") // the refresh
	if !slices.Equal(got, want) {
		t.Errorf("audit = %v, want %v", got, want)
	}
}

func TestSEC37FirstAdmin(t *testing.T) {
	t.Parallel()
	s := newService(t)
	in := account.SignUp{Email: "root@example.com", Password: goodPassword, Name: "Root"}
	for i, want := range []bool{true, false} {
		if created, err := s.accounts.EnsureAdmin(t.Context(), in); err != nil || created != want {
			t.Errorf("call %d: EnsureAdmin = %t, %v", i+1, created, err)
		}
	}
	a := s.want(s.call("POST", "/login", "", fields{"email": in.Email, "password": goodPassword}), 200, "")
	if a.Data.User.Role != "admin" || !a.Data.User.EmailVerified {
		t.Errorf("user = %+v", a.Data.User)
	}
	if _, err := newService(t).accounts.EnsureAdmin(t.Context(), account.SignUp{Email: in.Email, Password: "password", Name: "Root"}); !errors.Is(err, account.ErrWeakPassword) {
		t.Errorf("EnsureAdmin with a default password = %v", err)
	}
}

func TestSigningKeysSurviveARestart(t *testing.T) {
	t.Parallel()
	s := newService(t)
	_, _, before := s.do("GET", "/.well-known/jwks.json", "", "", "")
	open := func(sealer *event.Sealer) (*signing.Keyring, error) {
		return signing.OpenKeyring(t.Context(), store.NewKeys(s.db, outbox.New("auth-service"), sealer), time.Now)
	}
	again, err := open(s.sealer)
	if err != nil || string(again.JWKS()) != string(before) {
		t.Errorf("keys after a restart = %v, %v; before %s", again, err, before)
	}
	other, err := event.NewSealer(strings.Repeat("another key ", 4))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := open(other); !errors.Is(err, event.ErrSeal) {
		t.Errorf("keys with another ENCRYPTION_KEY = %v, want ErrSeal", err)
	}
}
