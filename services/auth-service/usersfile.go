package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	jsonv2 "github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/headgate/headgate/pkg/problem"
	"github.com/headgate/headgate/services/auth-service/internal/account"
	"github.com/headgate/headgate/services/auth-service/internal/dump"
)

// record is a line of an import or an export.
type record struct {
	ID            string     `json:"id,omitempty"`
	SourceID      string     `json:"sourceId,omitempty"` // of the earlier system
	Email         string     `json:"email"`
	EmailVerified bool       `json:"emailVerified,omitempty"`
	Name          string     `json:"name"`
	Role          string     `json:"role,omitempty"`
	Status        string     `json:"status,omitempty"`
	PasswordHash  string     `json:"passwordHash,omitempty"`
	CreatedAt     *time.Time `json:"createdAt,omitempty"`
}

// parseRecord parses a line. It fails on unknown fields: a hash under a wrong name would
// create an account that nobody can sign in to. Its errors are for the person who wrote the
// file.
func parseRecord(line []byte) (account.Imported, error) {
	var r record
	if err := jsonv2.Unmarshal(line, &r, jsonv2.RejectUnknownMembers(true)); err != nil {
		return account.Imported{}, recordFault(err)
	}
	in := account.Imported{
		ID: r.ID, SourceID: r.SourceID, Email: r.Email, EmailVerified: r.EmailVerified, Name: r.Name, Role: r.Role, Status: r.Status, PasswordHash: r.PasswordHash,
	}
	if r.CreatedAt != nil {
		if r.CreatedAt.UTC().Year() <= 1 { // The zero time of many languages.
			return account.Imported{}, problem.Validation(problem.Field{Field: "createdAt", Code: "invalid_format", Message: "Year 1 is not the time of an account: leave the field out if the time is unknown."})
		}
		in.CreatedAt = *r.CreatedAt
	}
	return in, nil
}

// addressIn returns the address in a line that is refused: its first member email, if that
// is whole and no fault of syntax comes before it.
func addressIn(line []byte) string {
	d := jsontext.NewDecoder(bytes.NewReader(line), jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true))
	if begin, err := d.ReadToken(); err != nil || begin.Kind() != '{' {
		return ""
	}
	for d.PeekKind() == '"' {
		name, err := d.ReadToken()
		if err != nil {
			return ""
		}
		if strings.EqualFold(name.String(), "email") && d.PeekKind() == '"' {
			address, err := d.ReadToken()
			if err != nil {
				return ""
			}
			return address.String()
		}
		if err := d.SkipValue(); err != nil {
			return ""
		}
	}
	return ""
}

// recordFault returns what is wrong with a line that jsonv2 cannot decode because of err.
func recordFault(err error) error {
	if syntactic, ok := errors.AsType[*jsontext.SyntacticError](err); ok {
		if errors.Is(err, jsontext.ErrDuplicateName) {
			return problem.Validation(problem.Field{Field: syntactic.JSONPointer.LastToken(), Code: "duplicate_field", Message: "Duplicate field."})
		}
		return fmt.Errorf("invalid JSON at byte %d", syntactic.ByteOffset)
	}
	semantic, ok := errors.AsType[*jsonv2.SemanticError](err)
	if !ok || semantic.JSONPointer == "" {
		return errNoObject
	}
	f := problem.Field{Field: semantic.JSONPointer.LastToken(), Code: "invalid_type", Message: "Must be a string."}
	switch {
	case errors.Is(err, jsonv2.ErrUnknownName):
		f.Code, f.Message = "unknown_field", "Unknown field."
	case f.Field == "emailVerified":
		f.Message = "Must be true or false."
	case f.Field == "createdAt":
		f.Code, f.Message = "invalid_format", "Invalid timestamp: use RFC 3339, for example 2026-01-31T12:00:00Z."
	}
	return problem.Validation(f)
}

// trimLine returns the line with the number n of a file without white space around it, and
// the first line without a byte order mark.
func trimLine(line []byte, n int) []byte {
	if n == 1 {
		line = bytes.TrimPrefix(line, []byte(dump.BOM))
	}
	return bytes.TrimSpace(line)
}

var errNoObject = errors.New("a line must be one JSON object")

var errLongLine = errors.New("line is longer than 64 KiB")

// nextLine returns the next line, which is valid until the next call. The last line
// comes with io.EOF. For a line that is too long, it returns only the beginning of it, with
// errLongLine.
func nextLine(in *bufio.Reader) ([]byte, error) {
	line, err := in.ReadSlice('\n')
	if !errors.Is(err, bufio.ErrBufferFull) {
		return line, err
	}
	beginning := bytes.Clone(line)
	for errors.Is(err, bufio.ErrBufferFull) {
		_, err = in.ReadSlice('\n')
	}
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	return beginning, errLongLine
}

// exportUsers is the command "users export". It writes what importUsers reads. The output
// contains password hashes, but no second factors: their secrets are sealed with keys of
// this deployment.
func exportUsers(ctx context.Context, cfg Config, args []string) error {
	if len(args) > 0 {
		return errors.New("usage: auth-service users export > FILE")
	}
	return withDomain(ctx, cfg, func(ctx context.Context, d domain) error {
		w := bufio.NewWriter(os.Stdout)
		encode, factors := json.NewEncoder(w), 0
		err := d.accounts.Export(ctx, func(a account.Account) error {
			if a.MFAEnabled {
				factors++
			}
			return encode.Encode(record{
				ID: a.ID, Email: a.Email.Address, EmailVerified: a.EmailVerified, Name: a.Name,
				Role: a.Role, Status: a.Status, PasswordHash: a.PasswordHash, CreatedAt: &a.CreatedAt,
			})
		})
		if factors > 0 {
			fmt.Fprintf(os.Stderr, "warning: second factors are not exported; accounts that must set theirs up again: %d\n", factors)
		}
		return errors.Join(err, w.Flush())
	})
}
