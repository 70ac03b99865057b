package api_test

import (
	"testing"

	"github.com/headgate/headgate/services/auth-service/internal/account"
)

// If the public URL has an IP address, everything but passkeys works.
func TestNoPasskeysWithoutAName(t *testing.T) {
	t.Parallel()
	s := newService(t, func(cfg *account.Config) { cfg.Passkeys = nil })
	ann := s.signup("ann@example.com").Data.Tokens
	s.want(s.call("POST", "/passkeys", ann.AccessToken, nil), 404, "passkeys_unavailable")
	s.want(s.call("POST", "/passkeys/login", "", nil), 404, "passkeys_unavailable")
}
