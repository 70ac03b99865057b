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
	MFAEnabled    bool // Does a login need a code after the password?
	CreatedAt     time.Time
	UpdatedAt     time.Time
}

// The failures that several use cases share.
var (
	ErrNotFound           = problem.New(problem.NotFound, "account_not_found", "There is no such account.")
	ErrEmailTaken         = problem.New(problem.Conflict, "email_taken", "An account with this email already exists.")
	ErrWeakPassword       = problem.New(problem.Invalid, "weak_password", "This password is too easy to guess.")
	ErrInvalidCredentials = problem.New(problem.Unauthenticated, "invalid_credentials", "Email or password is not right.")
	ErrAccountDisabled    = problem.New(problem.Forbidden, "account_disabled", "This account is disabled.")
	ErrEmailNotVerified   = problem.New(problem.Forbidden, "email_not_verified", "Confirm your email address first. We have sent you a mail.")
	ErrLastAdmin          = problem.New(problem.Conflict, "last_admin", "This is the last administrator. Make another one first.")
)

// actAs returns a context whose events name the account as their actor.
func actAs(ctx context.Context, account Account) context.Context {
	return event.WithActor(ctx, event.Actor{Type: account.Role, ID: account.ID})
}
