package api_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"

	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/services/auth-service/internal/account"
	"github.com/headgate/headgate/services/auth-service/internal/password"
)

// fillLine makes the line of an account full until the test ends: one password is hashed
// for seconds, and as many as may wait do.
func fillLine(t *testing.T, line *password.Hasher) {
	t.Helper()
	hard := "$2a$15$" + strings.Repeat("a", 53) // takes seconds
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	t.Cleanup(func() { cancel(); running.Wait() })
	full := make(chan struct{})
	once := sync.OnceFunc(func() { close(full) })
	for range 10 { // more than may wait
		running.Go(func() {
			if _, _, err := line.Verify(ctx, hard, "x"); errors.Is(err, password.ErrAccountBusy) {
				once()
			}
		})
	}
	<-full
}

// SEC-104: wherever the owner of an account is known, the password waits in the line of
// that account. If the line is full, the request is refused at once, and is neither a failed
// attempt nor recorded. The line of others is not affected.
func TestSEC104PasswordsOfKnownAccountsWaitInTheirLine(t *testing.T) {
	t.Parallel()
	hasher := password.NewHasher(password.Config{Params: cheap, Concurrency: 3, Queue: 100})
	s := newService(t, func(cfg *account.Config) { cfg.Hasher = hasher })
	ann := s.signup("ann@example.com").Data
	s.forgot("ann@example.com")
	reset := s.link(event.UserResetLinkIssued{}, "ann@example.com", 1)
	fillLine(t, hasher.For(ann.User.ID))
	for range 12 { // more than the failed attempts that are not delayed
		s.want(s.call("POST", "/reauthenticate", ann.Tokens.AccessToken, fields{"password": goodPassword}), 503, "busy")
	}
	for route, body := range map[string]fields{
		"POST /change-password":     {"currentPassword": goodPassword, "newPassword": otherPassword},
		"POST /change-email":        {"currentPassword": goodPassword, "newEmail": "new@example.com"},
		"DELETE /account":           {"password": goodPassword},
		"DELETE /mfa/totp/nonsense": {"password": goodPassword},
		"DELETE /passkeys/nonsense": {"password": goodPassword},
		"POST /reset-password":      {"token": reset, "newPassword": otherPassword},
	} {
		method, path, _ := strings.Cut(route, " ")
		if a := s.call(method, path, ann.Tokens.AccessToken, body); a.status != 503 || a.header.Get("Retry-After") == "" {
			t.Errorf("%s = %d %s, want 503", route, a.status, a.Code)
		}
	}
	s.login("ann@example.com")
	if n := s.count(event.Audit, event.RequestRefused{}); n > 0 {
		t.Errorf("%d refusals were recorded", n)
	}
	bob := s.signup("bob@example.com").Data.Tokens
	s.want(s.call("POST", "/reauthenticate", bob.AccessToken, fields{"password": goodPassword}), 200, "")
}
