package api_test

import (
	"errors"
	"testing"

	"github.com/headgate/headgate/services/auth-service/internal/account"
)

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
