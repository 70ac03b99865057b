package account

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"

	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/pkg/problem"
	"github.com/headgate/headgate/pkg/token"
	"github.com/headgate/headgate/services/auth-service/internal/password"
)

// Imported is an account of an earlier system. Only Email and Name are required;
// without a hash its owner chooses a password by mail.
type Imported struct {
	ID            string // a UUID; made if empty
	Email         string
	EmailVerified bool
	Name          string
	Role          string // user if empty
	Status        string // active if empty
	PasswordHash  string // Argon2id or bcrypt; made anew at the next login
	CreatedAt     time.Time
}

// ImportOutcome is what came of one account.
type ImportOutcome int

// The outcomes.
const (
	Created ImportOutcome = iota
	There                 // it was imported before
	Clashes               // another account has the address or the id
)

// CheckImport says what is wrong with an account, or returns nil.
func (a *Accounts) CheckImport(in Imported) error {
	_, err := a.imported(in)
	return err
}

func (a *Accounts) imported(in Imported) (Account, error) {
	email, emailFault := parseEmail("email", in.Email)
	name, nameFault := parseName(in.Name)
	account := Account{
		ID: in.ID, Email: email, EmailVerified: in.EmailVerified, Name: name, Role: in.Role, Status: in.Status,
		PasswordHash: in.PasswordHash, CreatedAt: in.CreatedAt.UTC().Truncate(time.Microsecond), UpdatedAt: a.time(),
	}
	if account.Role == "" {
		account.Role = token.RoleUser
	}
	if account.Status == "" {
		account.Status = Active
	}
	if account.CreatedAt.IsZero() || account.CreatedAt.After(account.UpdatedAt) {
		account.CreatedAt = account.UpdatedAt
	}
	var idFault, hashFault *problem.Field
	if parsed, err := uuid.Parse(in.ID); in.ID != "" && (err != nil || parsed.String() != in.ID) {
		idFault = &problem.Field{Field: "id", Code: "invalid_format", Message: "This is no UUID in its usual form."}
	}
	if in.PasswordHash != "" && password.CheckHash(in.PasswordHash) != nil {
		hashFault = &problem.Field{Field: "passwordHash", Code: "invalid_format", Message: "This is no hash of Argon2id or of bcrypt up to cost 16."}
	}
	return account, faults(emailFault, nameFault, idFault, hashFault, oneOf("role", account.Role, roles), oneOf("status", account.Status, statuses))
}

// Import creates accounts, in one transaction with their events, and returns
// what came of each. Nobody gets a mail.
func (a *Accounts) Import(ctx context.Context, in []Imported) ([]ImportOutcome, error) {
	changes := make([]Change, len(in))
	for i := range in {
		account, err := a.imported(in[i])
		if err != nil {
			return nil, fmt.Errorf("import account %d: %w", i, err)
		}
		if account.ID == "" {
			id, err := uuid.NewV7()
			if err != nil {
				return nil, fmt.Errorf("make account id: %w", err)
			}
			account.ID = id.String()
		}
		changes[i] = Change{Account: account, Events: []event.Event{a.signedUp(ctx, account)}}
	}
	created, err := a.store.ImportAccounts(ctx, changes)
	if err != nil {
		return nil, err
	}
	outcomes := make([]ImportOutcome, len(in))
	for i, ok := range created {
		if ok {
			continue
		}
		if outcomes[i], err = a.thereAlready(ctx, in[i], changes[i].Account); err != nil {
			return nil, err
		}
	}
	return outcomes, nil
}

// thereAlready tells the account that an earlier run made from somebody else's.
func (a *Accounts) thereAlready(ctx context.Context, in Imported, account Account) (ImportOutcome, error) {
	found, err := a.store.AccountByEmail(ctx, account.Email.Key)
	switch {
	case errors.Is(err, ErrNotFound):
		return Clashes, nil // The id is taken.
	case err != nil:
		return Clashes, err
	case in.ID != "" && found.ID != in.ID:
		return Clashes, nil
	}
	return There, nil
}

// exportPage is how many accounts are in memory at a time.
const exportPage = 1000

// Export calls visit with every account, newest first.
func (a *Accounts) Export(ctx context.Context, visit func(Account) error) error {
	for after := ""; ; {
		page, err := a.store.Accounts(ctx, Filter{}, after, exportPage)
		if err != nil {
			return err
		}
		for _, account := range page {
			if err := visit(account); err != nil {
				return err
			}
		}
		if len(page) < exportPage {
			return nil
		}
		after = page[len(page)-1].ID
	}
}
