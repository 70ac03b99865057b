package account

import (
	"context"
	"errors"
	"fmt"

	"github.com/google/uuid"

	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/pkg/problem"
	"github.com/headgate/headgate/services/auth-service/internal/password"
	"github.com/headgate/headgate/services/auth-service/internal/signing"
)

// Credentials is what somebody gives to sign in.
type Credentials struct {
	Email, Password, DeviceName string
}

// LoginResult is what a login led to: a session, or the question for a second factor.
type LoginResult struct {
	Account Account
	Tokens  signing.Tokens
	MFA     *MFARequired // If it is there, the rest is not.
}

// Login checks a password and starts a session. It takes the same time whether
// or not an account has the address. It fails with ErrInvalidCredentials,
// ErrAccountDisabled, ErrEmailNotVerified, ErrTooManyAttempts, a validation
// problem or password.ErrBusy; the first four are recorded as events.
func (a *Accounts) Login(ctx context.Context, in Credentials) (LoginResult, error) {
	email, emailFault := parseEmail("email", in.Email)
	_, secretFault := password.Normalize("password", in.Password)
	device, deviceFault := parseLine("deviceName", in.DeviceName)
	if err := faults(emailFault, secretFault, deviceFault); err != nil {
		return LoginResult{}, err
	}
	attempt, err := a.countFailedAttempt(ctx, passwordAttempt, email)
	if err != nil {
		return LoginResult{}, err
	}
	for range maxChanges {
		out, err := a.login(ctx, email, in.Password, device, attempt)
		if !errors.Is(err, ErrAccountChanged) {
			return out, err
		}
	}
	return LoginResult{}, fmt.Errorf("log in: %w", ErrAccountChanged)
}

// maxChanges is how often a password is checked again because it was changed
// while it was checked.
const maxChanges = 3

func (a *Accounts) login(ctx context.Context, email Email, typed, device string, attempt CountedAttempt) (LoginResult, error) {
	account, err := a.store.AccountByEmail(ctx, email.Key)
	if err != nil && !errors.Is(err, ErrNotFound) {
		return LoginResult{}, err
	}
	ok, stale, err := a.checkPassword(ctx, attempt, account.PasswordHash, typed)
	if err != nil {
		return LoginResult{}, err
	}
	if !ok {
		return LoginResult{}, a.loginFailed(ctx, account, ErrInvalidCredentials)
	}
	if account.Status != Active {
		return LoginResult{}, a.loginFailed(ctx, account, ErrAccountDisabled)
	}
	if !account.EmailVerified && a.mode == SignUpStrict {
		// Whoever signed up and can sign in would have learned that nobody had
		// the address.
		return LoginResult{}, a.loginFailed(ctx, account, ErrInvalidCredentials)
	}
	if a.requireVerified && !account.EmailVerified {
		return LoginResult{}, a.loginFailed(ctx, account, ErrEmailNotVerified)
	}
	newHash := ""
	if stale {
		newHash, err = a.hasher.Hash(ctx, typed)
		if err != nil && !errors.Is(err, password.ErrBusy) { // It can wait for the next time.
			return LoginResult{}, err
		}
	}
	ctx = actAs(ctx, account)
	if account.MFAEnabled {
		wanted, err := a.challenge(ctx, account, device, newHash, attempt.Key)
		return LoginResult{MFA: wanted}, err
	}
	session := a.newSession(ctx, account, device)
	tokens, err := a.issueTokens(account, session, session.CreatedAt)
	if err != nil {
		return LoginResult{}, err
	}
	loggedIn := event.New(ctx, session.CreatedAt, account.ID, event.UserLoggedIn{SessionID: session.ID, DeviceName: device})
	if err := a.store.StartSession(ctx, session, account, newHash, attempt.Key, loggedIn); err != nil {
		return LoginResult{}, err
	}
	return LoginResult{Account: account, Tokens: tokens}, nil
}

// loginFailed records why a login was refused and returns the reason.
func (a *Accounts) loginFailed(ctx context.Context, account Account, reason *problem.Problem) error {
	failed := event.New(ctx, a.time(), account.ID, event.UserLoginFailed{Reason: reason.Code})
	if err := a.store.Record(ctx, failed); err != nil {
		return err
	}
	return problem.Recorded(reason)
}

func (a *Accounts) newSession(ctx context.Context, account Account, device string) Session {
	now := a.time()
	origin := event.OriginFrom(ctx)
	return Session{
		ID: uuid.Must(uuid.NewV7()).String(), AccountID: account.ID,
		Generation: 1, RotatedAt: now,
		DeviceName: device, UserAgent: origin.UserAgent, IP: origin.IP, Network: origin.Network(),
		CreatedAt: now, LastUsedAt: now, AuthenticatedAt: now,
		ExpiresAt: now.Add(min(a.lifetimes.RefreshIdle, a.lifetimes.Session)),
		EndsAt:    now.Add(a.lifetimes.Session),
	}
}
