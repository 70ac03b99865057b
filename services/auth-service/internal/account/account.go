// Package account holds the rules of auth-service: accounts, their sessions, and how
// their owners sign up, sign in and out, and change them. Each use case has a file.
// The package knows no HTTP, no SQL and no broker.
package account

import (
	"context"
	"time"

	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/pkg/problem"
)

// The states of an account.
const (
	Active   = "active"
	Disabled = "disabled"
)

// Account belongs to one person, its owner, who signs in to it.
type Account struct {
	ID            string
	Email         Email
	EmailVerified bool
	Name          string
	Role          string // one of token's roles
	Status        string
	PasswordHash  string
	// PasswordProved says whether the password was set by a person who has proved the
	// address, and Provisional whether one signed up who cannot sign in before that.
	// While the address is unverified, nobody has used a provisional account.
	PasswordProved bool
	Provisional    bool
	MFAEnabled     bool // whether a login needs a code after the password
	CreatedAt      time.Time
	UpdatedAt      time.Time
	DeleteAt       time.Time // when the account will be deleted; zero unless its owner asked for it
	Version        int64     // of the address, see event.UserEmailChanged
}

// nextVersion gives the account the version of a change at now.
func (a *Account) nextVersion(now time.Time) { a.Version = max(a.Version+1, now.UnixMicro()) }

// The failures that several use cases share.
var (
	ErrNotFound           = problem.New(problem.NotFound, "account_not_found", "Account not found.")
	ErrEmailTaken         = problem.New(problem.Conflict, "email_taken", "An account with this email address already exists.")
	ErrWeakPassword       = problem.New(problem.Invalid, "weak_password", "This password is too easy to guess. Choose another one.")
	ErrInvalidCredentials = problem.New(problem.Unauthenticated, "invalid_credentials", "Incorrect email or password.")
	ErrAccountDisabled    = problem.New(problem.Forbidden, "account_disabled", "This account is disabled.")
	ErrEmailNotVerified   = problem.New(problem.Forbidden, "email_not_verified", "Verify your email address first: use the link in the email that we sent you.")
	ErrLastAdmin          = problem.New(problem.Conflict, "last_admin", "This is the last active administrator. Make another account an administrator first.")
)

// actAs returns a context whose events name the account as their actor.
func actAs(ctx context.Context, account Account) context.Context {
	return event.WithActor(ctx, event.Actor{Type: account.Role, ID: account.ID})
}
