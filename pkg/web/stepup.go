package web

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/headgate/headgate/pkg/problem"
	"github.com/headgate/headgate/pkg/token"
)

// StepUp is the part of the configuration that says how strongly a caller must be
// authenticated for more than their own data.
type StepUp struct {
	ReauthWindow  time.Duration `envconfig:"REAUTH_WINDOW" default:"15m" desc:"How long a sign-in or re-authentication allows privileged changes, and changes to factors. The same for every service."`
	RequireMFAFor []string      `envconfig:"REQUIRE_MFA_FOR" desc:"Roles, such as admin,auditor, that are of use only in sessions with a second factor. The same for every service."`
}

// Validate implements service.Validator.
func (s StepUp) Validate() error {
	var faults []error
	if s.ReauthWindow <= 0 {
		faults = append(faults, errors.New("REAUTH_WINDOW: want more than 0"))
	}
	for _, role := range s.RequireMFAFor {
		if !slices.Contains([]string{token.RoleAuditor, token.RoleAdmin}, role) {
			faults = append(faults, fmt.Errorf("REQUIRE_MFA_FOR: %q: want %s or %s", role, token.RoleAdmin, token.RoleAuditor))
		}
	}
	return errors.Join(faults...)
}

// The errors for callers who are not authenticated strongly enough.
var (
	ErrReauthRequired = problem.New(problem.Unauthenticated, "reauth_required", "Confirm your identity (POST /api/v1/auth/reauthenticate), refresh the access token, then retry.")
	ErrMFARequired    = problem.New(problem.Forbidden, "mfa_required", "This requires a second factor. Add one (POST /api/v1/auth/mfa/totp or /api/v1/auth/passkeys), sign in with it, then retry.")
)

// defaultReauthWindow is for routers without a configuration.
const defaultReauthWindow = 15 * time.Minute

// Restrict returns the identity with only the rights that its authentication allows.
func (s StepUp) Restrict(i token.Identity) token.Identity {
	i.Restricted = i.ACR != token.AAL2 && slices.Contains(s.RequireMFAFor, i.Role)
	return i
}

// recent reports whether the identity was authenticated recently.
func (s StepUp) recent(i token.Identity, now time.Time) bool {
	window := s.ReauthWindow
	if window == 0 {
		window = defaultReauthWindow
	}
	return now.Sub(i.AuthTime) < window
}

// Require fails with problem.ErrForbidden if the identity has none of the roles, and with
// ErrMFARequired if only its second factor is missing.
func Require(i token.Identity, roles ...string) error {
	switch {
	case i.Is(roles...):
		return nil
	case i.Restricted && slices.Contains(roles, i.Role):
		return ErrMFARequired
	}
	return problem.ErrForbidden
}
