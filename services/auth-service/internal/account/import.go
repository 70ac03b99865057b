package account

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"

	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/pkg/problem"
	"github.com/headgate/headgate/pkg/token"
)

// importStore is what an import stores.
type importStore interface {
	// ImportAccounts stores new accounts with their events, and reports for each
	// whether it was stored. It skips those whose address or id is taken.
	ImportAccounts(ctx context.Context, changes []Change) ([]bool, error)
}

// Imported is an account of an earlier system. Only Email and Name are required.
// Without a hash, its owner has to reset the password to sign in.
type Imported struct {
	ID            string // a UUID; made of the address and the stored time if empty
	Email         string
	EmailVerified bool
	Name          string
	Role          string    // user if empty
	Status        string    // active if empty
	PasswordHash  string    // Argon2id or bcrypt; replaced at the next login
	CreatedAt     time.Time // the time of the import is stored if it is zero or in the future
}

// ImportOutcome is what happened to one account.
type ImportOutcome int

// The outcomes.
const (
	ImportCreated  ImportOutcome = iota
	ImportExists                 // an earlier import created it
	ImportConflict               // another account has the address or the id
)

// CheckImport returns what is wrong with an account, or nil.
func (a *Accounts) CheckImport(in Imported) error {
	_, err := a.parseImported(in)
	return err
}

func (a *Accounts) parseImported(in Imported) (Account, error) {
	email, emailErr := parseEmail("email", in.Email)
	name, nameErr := parseName(in.Name)
	account := Account{
		ID: in.ID, Email: email, EmailVerified: in.EmailVerified, Name: name, Role: in.Role, Status: in.Status,
		PasswordHash: in.PasswordHash, PasswordProved: in.EmailVerified, CreatedAt: in.CreatedAt.UTC().Truncate(time.Microsecond), UpdatedAt: a.time(),
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
	var idErr, hashErr *problem.Field
	if parsed, err := uuid.Parse(in.ID); in.ID != "" && (err != nil || parsed.String() != in.ID) {
		idErr = &problem.Field{Field: "id", Code: "invalid_format", Message: "Invalid UUID: use the lower-case form with hyphens."}
	}
	if in.PasswordHash != "" && a.hasher.CheckHash(in.PasswordHash) != nil {
		hashErr = &problem.Field{Field: "passwordHash", Code: "invalid_format", Message: "Unsupported password hash: use Argon2id with m up to 131072 and m × t up to 311296, without a pepper or with one from PASSWORD_PEPPERS, or bcrypt up to cost 16."}
	}
	return account, validate(emailErr, nameErr, idErr, hashErr, oneOf("role", account.Role, roles), oneOf("status", account.Status, statuses))
}

// Import creates accounts in one transaction with their events, and returns the
// outcome of each. It sends no mails.
func (a *Accounts) Import(ctx context.Context, in []Imported) ([]ImportOutcome, error) {
	changes := make([]Change, len(in))
	for i := range in {
		account, err := a.parseImported(in[i])
		if err != nil {
			return nil, fmt.Errorf("import account %d: %w", i, err)
		}
		if account.ID == "" {
			account.ID = importedID(in[i], account.Email, account.CreatedAt)
		}
		changes[i] = Change{Account: account, Events: []event.Event{signedUp(ctx, account)}}
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
		if outcomes[i], err = a.skippedOutcome(ctx, in[i], changes[i].Account); err != nil {
			return nil, err
		}
	}
	return outcomes, nil
}

// importedID returns the id of an account whose line has none: a UUIDv7 of the time at which
// the account was created. The rest of the id is that of the line, the same in every run. So
// the id tells an account that an earlier run created from one that another person created
// with the same address.
func importedID(line Imported, email Email, created time.Time) string {
	var id uuid.UUID
	sum := sha256.Sum256(fmt.Appendf(nil, "headgate import\x00%s\x00%d", email.Key, line.CreatedAt.UnixMicro()))
	copy(id[:], sum[:])
	var stamp [8]byte
	binary.BigEndian.PutUint64(stamp[:], uint64(max(0, created.UnixMilli()))) // UUIDv7 has no time before 1970.
	copy(id[:6], stamp[2:])
	id[6], id[8] = id[6]&0x0f|0x70, id[8]&0x3f|0x80 // version and variant (RFC 9562)
	return id.String()
}

// skippedOutcome returns why the store skipped the account of a line.
func (a *Accounts) skippedOutcome(ctx context.Context, line Imported, account Account) (ImportOutcome, error) {
	found, err := a.store.AccountByEmail(ctx, account.Email.Key)
	switch {
	case errors.Is(err, ErrNotFound):
		return ImportConflict, nil // The id is taken.
	case err != nil:
		return ImportConflict, err
	case line.ID == "":
		account.ID = importedID(line, account.Email, found.CreatedAt) // Its own time may be later.
	}
	if found.ID != account.ID {
		return ImportConflict, nil
	}
	return ImportExists, nil
}
