package account

import (
	"context"
	"errors"
	"fmt"

	"github.com/google/uuid"

	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/pkg/token"
	"github.com/headgate/headgate/services/auth-service/internal/password"
	"github.com/headgate/headgate/services/auth-service/internal/signing"
)

// SignUp is what somebody gives to get an account.
type SignUp struct {
	Email, Password, Name string
}

// SignUpMode says who may sign up, and what they learn from it.
type SignUpMode string

// The modes.
const (
	SignUpOpen   SignUpMode = "open"   // everybody; who signs up learns whether an address has an account
	SignUpStrict SignUpMode = "strict" // everybody; only a mail to the address says so
	SignUpClosed SignUpMode = "closed" // nobody; administrators make accounts
)

// SignUpResult is what a sign-up led to. In Strict mode it says nothing.
type SignUpResult struct {
	Account Account
	Tokens  *signing.Tokens // nil if the address must be verified first
}

// Register creates an account and signs it in. The account, its session and
// its events commit together or not at all. With an idempotency key, the first
// answer is given again, and replayed says so. It fails with a validation problem,
// ErrWeakPassword, ErrEmailTaken, ErrSignUpClosed, ErrKeyReused, ErrKeyInProgress
// or password.ErrBusy. In Strict mode the address is told what came of it, and
// only the address.
func (a *Accounts) Register(ctx context.Context, in SignUp, idempotencyKey string) (out SignUpResult, replayed bool, err error) {
	if a.mode == SignUpClosed {
		return SignUpResult{}, false, ErrSignUpClosed
	}
	if err := checkIdempotencyKey(idempotencyKey); err != nil {
		return SignUpResult{}, false, err
	}
	account, secret, err := a.prepare(in)
	if err != nil {
		return SignUpResult{}, false, err
	}
	return a.idempotently(ctx, idempotencyKey, in, func(record *IdempotencyRecord) (SignUpResult, error) {
		if a.mode == SignUpStrict {
			return SignUpResult{}, a.requestAccount(ctx, account, secret, record)
		}
		return a.create(ctx, account, secret, record)
	})
}

func (a *Accounts) create(ctx context.Context, account Account, secret string, record *IdempotencyRecord) (SignUpResult, error) {
	// An address that is taken needs no hash. The store decides races.
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
			session := a.newSession(ctx, account, "")
			tokens, err := a.issueTokens(account, session, account.CreatedAt)
			if err != nil {
				return err
			}
			c.NewSession, out.Tokens = &session, &tokens
		}
		if err := a.storeAnswer(record, out); err != nil {
			return err
		}
		return a.begin(ctx, c)
	})
	if err != nil {
		return SignUpResult{}, err
	}
	return out, nil
}

// begin adds what every new account gets: its event, and a mail, unless somebody
// makes accounts of the address again and again.
func (a *Accounts) begin(ctx context.Context, c *Change) error {
	c.Events = append(c.Events, a.signedUp(ctx, c.Account))
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

// prepare checks a sign-up and returns the account without its hash, and the
// password in the form that is hashed.
func (a *Accounts) prepare(in SignUp) (Account, string, error) {
	email, emailFault := parseEmail("email", in.Email)
	secret, secretFault := a.newPassword("password", in.Password)
	name, nameFault := parseName(in.Name)
	if err := faults(emailFault, secretFault, nameFault); err != nil {
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
		CreatedAt: now, UpdatedAt: now,
	}, secret, nil
}

func (a *Accounts) signedUp(ctx context.Context, account Account) event.Event {
	return event.New(ctx, account.CreatedAt, account.ID, event.UserSignedUp{
		Email: account.Email.Address, Name: account.Name, Role: account.Role,
	})
}
