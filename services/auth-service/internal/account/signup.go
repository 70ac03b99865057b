package account

import (
	"context"
	"errors"
	"fmt"

	"github.com/google/uuid"

	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/pkg/problem"
	"github.com/headgate/headgate/pkg/token"
	"github.com/headgate/headgate/services/auth-service/internal/password"
	"github.com/headgate/headgate/services/auth-service/internal/signing"
)

// signUpStore is what a sign-up stores.
type signUpStore interface {
	// CreateAccount stores the new account that decide puts into an empty change. It
	// fails with ErrEmailTaken.
	CreateAccount(ctx context.Context, decide func(c *Change) error) error
}

// SignUp is what a client sends to create an account.
type SignUp struct {
	Email, Password, Name string
}

// SignUpMode says who may sign up, and what the answer reveals.
type SignUpMode string

// The modes.
const (
	SignUpOpen   SignUpMode = "open"   // anyone; the answer reveals whether the address has an account
	SignUpStrict SignUpMode = "strict" // anyone; only a mail to the address reveals it
	SignUpClosed SignUpMode = "closed" // no one; administrators create accounts
)

// ErrSignUpClosed says that nobody may sign up.
var ErrSignUpClosed = problem.New(problem.Forbidden, "signup_closed", "Sign-up is closed. Only administrators can create accounts.")

// SignUpResult is what a sign-up created. In SignUpStrict mode it is empty. It is also
// the stored answer of an idempotency record, so its fields keep their names.
type SignUpResult struct {
	Account Account
	Tokens  *signing.Tokens // nil if the address must be verified first
}

// Register creates an account and signs it in. The account, its session and its
// events are committed together or not at all. With an idempotency key, a repeated
// request gets the first answer again, and replayed is true. In SignUpStrict mode
// the account is created later, and only a mail to the address tells the outcome. It
// fails with a validation problem, ErrWeakPassword, ErrEmailTaken, ErrTooManySignUps, ErrSignUpClosed,
// ErrKeyReused, ErrKeyInProgress or password.ErrBusy.
func (a *Accounts) Register(ctx context.Context, in SignUp, idempotencyKey string) (out SignUpResult, replayed bool, err error) {
	if a.mode == SignUpClosed {
		return SignUpResult{}, false, ErrSignUpClosed
	}
	if err := checkIdempotencyKey(idempotencyKey); err != nil {
		return SignUpResult{}, false, err
	}
	account, secret, err := a.newAccount(in)
	if err != nil {
		return SignUpResult{}, false, err
	}
	account.Provisional = a.mustVerify() || a.lifetimes.Unverified > 0
	return a.idempotently(ctx, idempotencyKey, in, func(record *IdempotencyRecord) (SignUpResult, error) {
		if a.mode == SignUpStrict {
			return SignUpResult{}, a.requestAccount(ctx, account, secret, record)
		}
		return a.createAccount(ctx, account, secret, record)
	})
}

// newAccount validates a sign-up. It returns the account without its password hash,
// and the normalized password.
func (a *Accounts) newAccount(in SignUp) (Account, string, error) {
	email, emailErr := parseEmail("email", in.Email)
	secret, passwordErr := a.newPassword("password", in.Password)
	name, nameErr := parseName(in.Name)
	if err := validate(emailErr, passwordErr, nameErr); err != nil {
		return Account{}, "", err
	}
	if password.Weak(secret, email.Address, localPart(email), name) {
		return Account{}, "", ErrWeakPassword
	}
	id, err := uuid.NewV7()
	if err != nil {
		return Account{}, "", fmt.Errorf("make account id: %w", err)
	}
	now := a.time()
	return Account{
		ID: id.String(), Email: email, Name: name, Role: token.RoleUser, Status: Active,
		CreatedAt: now, UpdatedAt: now, Version: now.UnixMicro(),
	}, secret, nil
}

func (a *Accounts) createAccount(ctx context.Context, account Account, secret string, record *IdempotencyRecord) (SignUpResult, error) {
	// Both answers reveal whether the address has an account.
	switch ok, err := a.store.AllowAnswer(ctx, event.OriginFrom(ctx).Network()); {
	case err != nil:
		return SignUpResult{}, err
	case !ok:
		return SignUpResult{}, ErrTooManySignUps
	}
	// Look first: an address that is taken needs no hash. The store decides races.
	switch _, err := a.store.AccountByEmail(ctx, account.Email.Key); {
	case err == nil:
		return SignUpResult{}, ErrEmailTaken
	case !errors.Is(err, ErrNotFound):
		return SignUpResult{}, err
	}
	var err error
	if account.PasswordHash, err = a.hasher.Hash(ctx, secret); err != nil {
		return SignUpResult{}, err
	}
	ctx = actAs(ctx, account)
	out := SignUpResult{Account: account}
	err = a.store.CreateAccount(ctx, func(c *Change) error {
		c.Account, c.Idempotency = account, record
		if !a.requireVerified {
			session := a.newSession(ctx, account, "", byPassword)
			tokens, err := a.firstTokens(account, session, Device{})
			if err != nil {
				return err
			}
			c.NewSession, out.Tokens = &session, &tokens
		}
		if err := a.storeAnswer(record, out); err != nil {
			return err
		}
		return a.addSignUpEvents(ctx, c)
	})
	if err != nil {
		return SignUpResult{}, err
	}
	return out, nil
}

// addSignUpEvents adds the events of a new account, which cause a verification mail. There
// is no mail if the address got too many of them, because somebody creates and deletes
// accounts with it.
func (a *Accounts) addSignUpEvents(ctx context.Context, c *Change) error {
	c.Events = append(c.Events, signedUp(ctx, c.Account))
	ok, err := c.AllowMail(ctx, mailSignUp, c.Account.Email)
	switch {
	case err != nil:
		return err
	case ok:
		a.issueLink(ctx, c, verifyLink, c.Account.Email)
	default:
		c.record(ctx, a.time(), event.UserMailCapped{Purpose: string(LinkVerifyEmail)})
	}
	return nil
}

// signedUp returns the event of a new account.
func signedUp(ctx context.Context, account Account) event.Event {
	return event.New(ctx, account.CreatedAt, account.ID, event.UserSignedUp{
		Email: account.Email.Address, Name: account.Name, Role: account.Role, AccountVersion: account.Version,
	})
}
