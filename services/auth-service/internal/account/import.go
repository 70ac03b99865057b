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
	// ImportAccounts stores new accounts with their events, and returns their ids. It skips
	// lines whose address, id or key is taken, and returns an empty id for them. An account
	// whose id belonged to a deleted account is stored with the spare id of its line.
	ImportAccounts(ctx context.Context, lines []ImportLine, signedUp func(Account) event.Event) ([]string, error)
	// AccountOfLine returns the account that a line with the key has created, or
	// ErrNotFound.
	AccountOfLine(ctx context.Context, key []byte) (Account, error)
	// MarkErased keeps an id from being imported.
	MarkErased(ctx context.Context, id string) error
}

// ImportLine is a line of an import as it is stored.
type ImportLine struct {
	Account  Account
	Key      []byte // the same whenever the line is imported, and of no other line
	SpareID  string // the id of the account if its own belonged to a deleted account
	FormerID string // the id that earlier releases gave to a line without one, or empty: if it is taken, the line was imported
}

// Imported is an account of an earlier system. Only Email and Name are required.
// Without a hash, its owner has to reset the password to sign in.
type Imported struct {
	ID            string // a UUID; a new one if it is empty or belonged to a deleted account
	SourceID      string // the id in the earlier system, which is not stored
	Email         string
	EmailVerified bool
	Name          string
	Role          string    // user if empty
	Status        string    // active if empty
	PasswordHash  string    // of a kind that the hasher checks; replaced at the next login
	CreatedAt     time.Time // the time of the import is stored if it is zero or in the future
}

// ImportOutcome is what happened to one line.
type ImportOutcome int

// The outcomes.
const (
	ImportCreated    ImportOutcome = iota
	ImportExists                   // an earlier import of the line created the account
	ImportEmailTaken               // another account has the address
	ImportIDTaken                  // another account has the id
)

// ImportResult is the outcome of a line, and the id of the account that it is about: the
// line's own, or the one that has its address or id.
type ImportResult struct {
	Outcome ImportOutcome
	ID      string
}

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
	account.Version = account.UpdatedAt.UnixMicro()
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
	if idErr == nil && in.ID == uuid.Nil.String() {
		idErr = &problem.Field{Field: "id", Code: "invalid_format", Message: "The nil UUID is not the id of an account: leave the field out if there is none."}
	}
	if in.PasswordHash != "" && a.hasher.CheckHash(in.PasswordHash) != nil {
		hashErr = &problem.Field{Field: "passwordHash", Code: "invalid_format", Message: "Unsupported password hash: use Argon2id or Argon2i with m up to 131072 and m × t up to 311296, without a pepper or with one from PASSWORD_PEPPERS; bcrypt up to cost 16; PBKDF2 up to 1300000 iterations (SHA-1 1500000, SHA-512 1000000); or Firebase scrypt with r × 2ⁿ up to 524288 and a key from FIREBASE_SIGNER_KEYS."}
	}
	return account, validate(emailErr, nameErr, idErr, hashErr, oneOf("role", account.Role, roles), oneOf("status", account.Status, statuses))
}

// Import creates accounts in one transaction with their events, and returns the result of
// each. It sends no mails. An id is never used twice: the other services have erased the ids
// of deleted accounts permanently, so an account that is imported again gets another one.
func (a *Accounts) Import(ctx context.Context, in []Imported) ([]ImportResult, error) {
	lines := make([]ImportLine, len(in))
	for i := range in {
		account, err := a.parseImported(in[i])
		if err == nil {
			lines[i], err = importLine(in[i], account)
		}
		if err != nil {
			return nil, fmt.Errorf("import account %d: %w", i, err)
		}
	}
	created, err := a.store.ImportAccounts(ctx, lines, func(stored Account) event.Event { return signedUp(ctx, stored) })
	if err != nil {
		return nil, err
	}
	results := make([]ImportResult, len(in))
	for i, id := range created {
		if results[i].ID = id; id != "" {
			continue
		}
		if results[i], err = a.skippedResult(ctx, in[i], lines[i]); err != nil {
			return nil, err
		}
	}
	return results, nil
}

// importLine returns the line of an account as it is stored.
func importLine(line Imported, account Account) (ImportLine, error) {
	spare, err := importID(account.CreatedAt)
	if err != nil {
		return ImportLine{}, fmt.Errorf("make account id: %w", err)
	}
	out := ImportLine{Account: account, SpareID: spare}
	identity := "id\x00" + line.ID
	if line.ID == "" {
		out.Account.ID, out.FormerID = spare, formerID(line, account.Email, account.CreatedAt)
		identity = fmt.Sprintf("address\x00%s\x00%d", account.Email.Key, line.CreatedAt.UnixMicro())
	}
	sum := sha256.Sum256([]byte("headgate import line\x00" + identity))
	out.Key = sum[:]
	return out, nil
}

// importID returns a new id: a UUIDv7 (RFC 9562) of the time at which the account was created.
func importID(created time.Time) (string, error) {
	id, err := uuid.NewRandom()
	if err != nil {
		return "", err
	}
	return stamp(id, created), nil
}

// stamp returns the UUIDv7 of a time with the other bits of id.
func stamp(id uuid.UUID, created time.Time) string {
	var ms [8]byte
	binary.BigEndian.PutUint64(ms[:], uint64(max(0, created.UnixMilli()))) // UUIDv7 has no time before 1970.
	copy(id[:6], ms[2:])
	id[6], id[8] = id[6]&0x0f|0x70, id[8]&0x3f|0x80 // version and variant
	return id.String()
}

// formerID returns the id that releases before import keys gave to the account of a line
// without one.
func formerID(line Imported, email Email, created time.Time) string {
	var id uuid.UUID
	sum := sha256.Sum256(fmt.Appendf(nil, "headgate import\x00%s\x00%d", email.Key, line.CreatedAt.UnixMicro()))
	copy(id[:], sum[:])
	return stamp(id, created)
}

// skippedResult returns why the store skipped a line.
func (a *Accounts) skippedResult(ctx context.Context, in Imported, line ImportLine) (ImportResult, error) {
	found, err := a.store.AccountOfLine(ctx, line.Key)
	if err == nil {
		return ImportResult{ImportExists, found.ID}, nil
	}
	if !errors.Is(err, ErrNotFound) {
		return ImportResult{}, err
	}
	found, err = a.store.AccountByEmail(ctx, line.Account.Email.Key)
	switch {
	case errors.Is(err, ErrNotFound) && in.ID == "": // An earlier release imported the line, and the address has changed since.
		return ImportResult{ImportExists, line.FormerID}, nil
	case errors.Is(err, ErrNotFound):
		return ImportResult{ImportIDTaken, in.ID}, nil
	case err != nil:
		return ImportResult{}, err
	// An earlier release stored its own time if the line has none.
	case found.ID == in.ID || in.ID == "" && found.ID == formerID(in, line.Account.Email, found.CreatedAt):
		return ImportResult{ImportExists, found.ID}, nil
	}
	return ImportResult{ImportEmailTaken, found.ID}, nil
}

// Erase deletes the account with an id, if there is one, and keeps the id from being imported.
// It repeats deletions that the database has lost. It reports whether there was an account,
// and fails with ErrLastAdmin.
func (a *Accounts) Erase(ctx context.Context, id string) (deleted bool, err error) {
	err = a.update(ctx, id, allSessions, func(c *Change) error {
		c.deleteAccount(ctx, a.time(), deletedByRequest)
		return nil
	})
	if errors.Is(err, ErrNotFound) {
		return false, a.store.MarkErased(ctx, id)
	}
	return err == nil, err
}
