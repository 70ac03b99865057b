package account

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/pkg/problem"
	"github.com/headgate/headgate/services/auth-service/internal/password"
	"github.com/headgate/headgate/services/auth-service/internal/signing"
)

// loginStore is what a login stores.
type loginStore interface {
	// StartSession stores a session if its owner still is in.Owner. It fails with
	// ErrAccountChanged.
	StartSession(ctx context.Context, s Session, in PasswordLogin) error
}

// PasswordLogin is a login whose password was right.
type PasswordLogin struct {
	Owner    Account // as it was when the password was checked
	NewHash  string  // replaces the owner's hash unless it is empty
	Attempts []byte  // the key of a CountedAttempt whose failures are cleared
	Events   []event.Event

	// Restores says that the login cancels the owner's deletion.
	Restores    bool
	IfNewDevice *NewDevice
}

// ErrAccountChanged says that an account changed while its password was checked.
var ErrAccountChanged = errors.New("account changed during login")

// Credentials are what a client sends to sign in.
type Credentials struct {
	Email, Password, DeviceName string

	DeviceToken string // of an earlier sign-in; optional
}

// LoginResult is a session, or a request for a second factor.
type LoginResult struct {
	Account Account
	Tokens  signing.Tokens
	MFA     *MFARequired // If it is set, the rest is empty.
}

// maxLoginRetries is how often a password is checked again because the account
// changed meanwhile.
const maxLoginRetries = 3

// Login checks a password and starts a session. It takes the same time whether or
// not an account has the address. It fails with ErrInvalidCredentials,
// ErrAccountDisabled, ErrEmailNotVerified, ErrTooManyAttempts, ErrResetRequired, a
// validation problem or password.ErrBusy. The first five are recorded.
func (a *Accounts) Login(ctx context.Context, in Credentials) (LoginResult, error) {
	email, emailErr := parseEmail("email", in.Email)
	_, passwordErr := password.Normalize("password", in.Password)
	device, deviceErr := parseLine("deviceName", in.DeviceName)
	if err := validate(emailErr, passwordErr, deviceErr); err != nil {
		return LoginResult{}, err
	}
	known := a.openDevice(in.DeviceToken)
	attempt, err := a.countFailedAttempt(ctx, passwordAttempt, email, known)
	if err != nil {
		return LoginResult{}, err
	}
	for range maxLoginRetries {
		out, err := a.login(ctx, loginAttempt{attempt, in.Password, device, known})
		if !errors.Is(err, ErrAccountChanged) {
			return out, err
		}
	}
	return LoginResult{}, fmt.Errorf("log in: %w", ErrAccountChanged)
}

// loginAttempt is a login whose attempt was counted.
type loginAttempt struct {
	CountedAttempt

	typed, device string
	known         Device
}

func (a *Accounts) login(ctx context.Context, attempt loginAttempt) (LoginResult, error) {
	account, err := a.store.AccountByEmail(ctx, attempt.email.Key)
	if err != nil && !errors.Is(err, ErrNotFound) {
		return LoginResult{}, a.uncount(ctx, attempt.CountedAttempt, err)
	}
	ok, stale, err := a.checkPassword(ctx, a.hasher, attempt.CountedAttempt, account.PasswordHash, attempt.typed)
	if err != nil {
		return LoginResult{}, err
	}
	if !ok {
		return LoginResult{}, a.loginFailed(ctx, account, ErrInvalidCredentials)
	}
	if refusal := a.refuseLogin(account); refusal != nil {
		return LoginResult{}, a.loginFailed(ctx, account, refusal)
	}
	in := PasswordLogin{Owner: account, Attempts: attempt.Key}
	if stale {
		in.NewHash, err = a.hasher.Hash(ctx, attempt.typed)
		if err != nil && !errors.Is(err, password.ErrBusy) { // The next login can replace the hash.
			return LoginResult{}, a.uncount(ctx, attempt.CountedAttempt, err)
		}
	}
	out, err := a.startLogin(ctx, attempt, in)
	if errors.Is(err, ErrAccountChanged) {
		return LoginResult{}, err // Perhaps its password, which is checked again.
	}
	return out, a.uncount(ctx, attempt.CountedAttempt, err)
}

// startLogin starts a session or asks for the second factor, after the password was right.
// It fails with ErrAccountChanged.
func (a *Accounts) startLogin(ctx context.Context, attempt loginAttempt, in PasswordLogin) (LoginResult, error) {
	account := in.Owner
	ctx = actAs(ctx, account)
	if attempt.Failures > undelayedAttempts && account.EmailVerified {
		in.Events = append(in.Events, event.New(ctx, a.time(), account.ID, guessed(account, "password", attempt.Failures-1)))
	}
	if account.MFAEnabled {
		required, err := a.startChallenge(ctx, in, attempt.device)
		return LoginResult{MFA: required}, err
	}
	session := a.newSession(ctx, account, attempt.device, byPassword)
	tokens, err := a.firstTokens(account, session, attempt.known)
	if err != nil {
		return LoginResult{}, err
	}
	in.Events = append(in.Events, event.New(ctx, session.CreatedAt, account.ID, event.UserLoggedIn{SessionID: session.ID, DeviceName: attempt.device}))
	in.IfNewDevice = newDevice(ctx, account, session)
	if in.Restores = !account.DeleteAt.IsZero(); in.Restores {
		in.Events = append(in.Events, deletionCancelled(ctx, session.CreatedAt, account))
	}
	if err := a.store.StartSession(ctx, session, in); err != nil {
		return LoginResult{}, err
	}
	account.DeleteAt = time.Time{}
	return LoginResult{Account: account, Tokens: tokens}, nil
}

// refuseLogin returns why an account may not sign in with its password, or nil.
func (a *Accounts) refuseLogin(account Account) *problem.Problem {
	switch {
	case account.Status != Active:
		return ErrAccountDisabled
	case !account.EmailVerified && a.mode == SignUpStrict:
		// Anybody could sign up with an address and learn from this answer that it
		// had no account before.
		return ErrInvalidCredentials
	case !account.EmailVerified && a.requireVerified:
		return ErrEmailNotVerified
	}
	return nil
}

// loginFailed records why an attempt that was counted as failed was refused, and returns the
// reason. Each is recorded if there is an account: the delays bound them. It takes the same time
// for every address, with or without an account.
func (a *Accounts) loginFailed(ctx context.Context, account Account, reason *problem.Problem) error {
	if account.ID == "" {
		return a.loginRefused(ctx, "", reason)
	}
	failed := event.UserLoginFailed{Reason: reason.Code}
	if err := a.store.Record(ctx, event.New(ctx, a.time(), account.ID, failed)); err != nil {
		return err
	}
	return problem.Recorded(reason)
}

// loginRefused is loginFailed for attempts that no delay bounds: they are counted for the account
// with that id, or for the network if it is empty.
func (a *Accounts) loginRefused(ctx context.Context, id string, reason *problem.Problem) error {
	if !a.count(ctx, id, event.UserLoginFailed{Reason: reason.Code}) {
		if err := a.store.RecordNothing(ctx); err != nil {
			return err
		}
	}
	return problem.Recorded(reason)
}
