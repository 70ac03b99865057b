// Package account is what auth-service is about: accounts, the sessions that
// speak for them, and the rules of signing up, in and out. It knows no HTTP, no
// SQL and no broker.
package account

import (
	"context"
	"errors"
	"time"

	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/pkg/problem"
	"github.com/headgate/headgate/services/auth-service/internal/signing"
)

// The states of an account.
const (
	Active   = "active"
	Disabled = "disabled"
)

// Account is somebody who can sign in.
type Account struct {
	ID            string
	Email         Email
	EmailVerified bool
	Name          string
	Role          string // one of token's roles
	Status        string
	PasswordHash  string
	MFAEnabled    bool // Must a second factor come with the password?
	CreatedAt     time.Time
	UpdatedAt     time.Time
}

// Session is one sign-in: a family of refresh tokens, of which the one with the
// current generation is good.
type Session struct {
	ID            string
	AccountID     string
	Generation    int
	RotatedAt     time.Time
	DeviceName    string
	UserAgent     string
	IP            string
	Network       string // see event.Origin
	CreatedAt     time.Time
	LastUsedAt    time.Time
	ExpiresAt     time.Time // when nobody refreshes it
	EndsAt        time.Time // whatever happens
	RevokedAt     time.Time // zero while it lives
	RevokedReason string

	AuthenticatedAt time.Time // when its owner last proved who they are
}

// Revoked reports whether the session was ended before its time.
func (s *Session) Revoked() bool { return !s.RevokedAt.IsZero() }

// revoke revokes the session and returns the event that says so.
func (s *Session) revoke(ctx context.Context, now time.Time, reason string) event.Event {
	s.RevokedAt, s.RevokedReason = now, reason
	return event.New(ctx, now, s.AccountID, event.SessionRevoked{SessionID: s.ID, Reason: reason})
}

// OneTimeToken proves that whoever has it reads mail at Email.
type OneTimeToken struct {
	Hash      []byte
	Purpose   LinkPurpose
	AccountID string
	Email     string
	CreatedAt time.Time
	ExpiresAt time.Time
}

// The failures that clients can cause.
var (
	ErrEmailTaken         = problem.New(problem.Conflict, "email_taken", "An account with this email already exists.")
	ErrWeakPassword       = problem.New(problem.Invalid, "weak_password", "This password is too easy to guess.")
	ErrTooManyAttempts    = problem.New(problem.TooManyRequests, "rate_limited", "Too many passwords that did not fit. Try again later.")
	ErrInvalidCredentials = problem.New(problem.Unauthenticated, "invalid_credentials", "Email or password is not right.")
	ErrAccountDisabled    = problem.New(problem.Forbidden, "account_disabled", "This account is disabled.")
	ErrRefreshReused      = problem.New(problem.Unauthenticated, "refresh_token_reused", "This refresh token was used before. The session has been ended for safety.")
	ErrSessionRevoked     = problem.New(problem.Unauthenticated, "session_revoked", "The session was ended. Sign in again.")
	ErrEmailNotVerified   = problem.New(problem.Forbidden, "email_not_verified", "Confirm your email address first. We have sent you a mail.")
	ErrSignUpClosed       = problem.New(problem.Forbidden, "signup_closed", "New accounts are made by administrators only.")
	ErrTooManyMails       = problem.New(problem.TooManyRequests, "too_many_mails", "This address got too many mails of late. Try again later.").WithRetryAfter(time.Hour)
	ErrTokenInvalid       = problem.New(problem.Invalid, "token_invalid", "This link is not valid any more.")
	ErrTokenExpired       = problem.New(problem.Gone, "token_expired", "This link has expired. Ask for a new one.")
	ErrNotFound           = problem.New(problem.NotFound, "account_not_found", "There is no such account.")
	ErrSessionNotFound    = problem.New(problem.NotFound, "session_not_found", "There is no such session.")
	ErrCodeInvalid        = problem.New(problem.Unauthenticated, "mfa_code_invalid", "The code is not right.")
	ErrChallengeExpired   = problem.New(problem.Gone, "mfa_token_expired", "The sign-in took too long or too many tries. Start again.")
	ErrFactorNotFound     = problem.New(problem.NotFound, "factor_not_found", "There is no such factor.")
	ErrConflict           = problem.New(problem.Conflict, "changed_meanwhile", "The account was changed meanwhile. Try again.")
	ErrCurrentPassword    = problem.New(problem.Unauthenticated, "current_password_invalid", "The current password is not right.")
	ErrSelfDemotion       = problem.New(problem.Forbidden, "self_demotion", "Nobody can take their own rights away. Ask another administrator.")
	ErrLastAdmin          = problem.New(problem.Conflict, "last_admin", "This is the last administrator. Make another one first.")
)

// ErrAccountChanged says that a password was replaced while it was checked.
var ErrAccountChanged = errors.New("password was changed meanwhile")

// issueTokens issues the tokens of a session as it is now.
func (a *Accounts) issueTokens(owner Account, s Session, now time.Time) (signing.Tokens, error) {
	return a.issuer.Issue(signing.Claims{
		AccountID: owner.ID, Role: owner.Role, Email: owner.Email.Address, Name: owner.Name,
		SessionID: s.ID, Generation: s.Generation,
		SignedInAt: s.CreatedAt, RotatedAt: s.RotatedAt, ExpiresAt: s.ExpiresAt,
	}, now)
}
