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
)

// SignUp is what somebody gives to get an account.
type SignUp struct {
	Email, Password, Name string
}

// Register creates an account and signs it in. The account, its session and
// its events commit together or not at all. It fails with a validation problem,
// ErrWeakPassword, ErrEmailTaken or password.ErrBusy.
func (a *Accounts) Register(ctx context.Context, in SignUp) (Account, Tokens, error) {
	account, secret, err := a.prepare(in)
	if err != nil {
		return Account{}, Tokens{}, err
	}
	// An address that is taken needs no hash. The store decides races.
	switch _, err := a.store.AccountByEmail(ctx, account.Email.Key); {
	case err == nil:
		return Account{}, Tokens{}, ErrEmailTaken
	case !errors.Is(err, ErrNotFound):
		return Account{}, Tokens{}, err
	}
	if account.PasswordHash, err = a.hasher.Hash(ctx, secret); err != nil {
		return Account{}, Tokens{}, err
	}
	ctx = actAs(ctx, account)
	session := a.newSession(ctx, account, "")
	tokens, err := a.issuer.tokens(account, session, a.lifetimes, account.CreatedAt)
	if err != nil {
		return Account{}, Tokens{}, err
	}
	c := Change{Account: account, Started: &session, Events: []event.Event{a.signedUp(ctx, account)}}
	a.requestVerification(ctx, &c)
	if err := a.store.CreateAccount(ctx, c); err != nil {
		return Account{}, Tokens{}, err
	}
	return account, tokens, nil
}

// prepare checks a sign-up and returns the account without its hash, and the
// password in the form that is hashed.
func (a *Accounts) prepare(in SignUp) (Account, string, error) {
	email, emailFault := ParseEmail(in.Email)
	secret, secretFault := password.Normalize("password", in.Password)
	name, nameFault := parseName(in.Name)
	if secretFault == nil && len([]rune(secret)) < a.minLength {
		secretFault = &problem.Field{
			Field: "password", Code: "too_short",
			Message: fmt.Sprintf("The password must have at least %d characters.", a.minLength),
		}
	}
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
