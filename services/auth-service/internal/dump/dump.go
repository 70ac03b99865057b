// Package dump reads what other systems export about their users: the realm export of
// Keycloak, the bulk export and the password hashes of Auth0, auth:export of Firebase, and
// the table of Supabase Auth. It holds one user in memory at a time.
package dump

import (
	"bufio"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"
	"unicode"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/google/uuid"
)

// User is a user of an earlier system, in the terms of an import.
type User struct {
	ID            string // a UUID, or empty
	SourceID      string // an id other than a UUID, or empty
	Email         string
	EmailVerified bool
	Name          string
	Disabled      bool
	PasswordHash  string
	CreatedAt     time.Time
}

// Out receives the result of reading a dump.
type Out struct {
	User func(User) error
	// LeftOut says that a user cannot be carried over, where it is in the file, and why.
	LeftOut func(at, user, reason string)
	// Lost says that something of a user cannot be carried over.
	Lost func(Loss)
}

// Loss is something of a user that cannot be carried over.
type Loss string

// The losses.
const (
	LostFactors     Loss = "users with a second factor, who must set it up again"
	LostProviders   Loss = "users who also sign in with another provider, which they cannot any more"
	LostRoles       Loss = "users whose roles or groups are replaced by the role user"
	LostMetadata    Loss = "users with metadata or attributes"
	LostHash        Loss = "users with a password hash of an unsupported kind, who must reset their password"
	NoPassword      Loss = "users without a password, who must reset it"
	UnmatchedHash   Loss = "password hashes of no user in the export"
	reasonNoEmail        = "the user has no email address"
	reasonDeleted        = "the user is deleted"
	reasonTechnical      = "the user is a service account"
)

// errShape says that a file is not what it should be.
var errShape = errors.New("not an export of this kind")

// source reports files of other kinds by the id that each user of a source has.
type source struct {
	id    string // the name of the field
	found bool
}

// user fails with errShape if the file begins with a user without an id.
func (s *source) user(at, id string) error {
	if id == "" && !s.found {
		return fmt.Errorf("%w: %s: a user without %q", errShape, at, s.id)
	}
	s.found = true
	return nil
}

// end fails with errShape if the file has no user with an id.
func (s *source) end(err error) error {
	if err == nil && !s.found {
		return fmt.Errorf("%w: it has no user with %q", errShape, s.id)
	}
	return err
}

// BOM is the byte order mark with which some programs begin a text.
const BOM = "\xef\xbb\xbf"

// withoutBOM returns a reader of what follows the byte order mark, and where that begins.
func withoutBOM(in io.Reader) (*bufio.Reader, int64) {
	r := bufio.NewReaderSize(in, 64<<10)
	if first, _ := r.Peek(len(BOM)); string(first) != BOM { // An error comes again when the file is read.
		return r, 0
	}
	n, _ := r.Discard(len(BOM))
	return r, int64(n)
}

// losses say what a user loses.
type losses map[Loss]bool

// send sends a user with an address, and counts what it loses.
func (o Out) send(at string, u User, id string, lost losses) error {
	if parsed, err := uuid.Parse(id); err == nil && parsed.String() == strings.ToLower(id) {
		u.ID = parsed.String()
	} else {
		u.SourceID = id
	}
	if u.Email == "" {
		o.LeftOut(at, id, reasonNoEmail)
		return nil
	}
	if u.Name = oneLine(u.Name); u.Name == "" {
		u.Name, _, _ = strings.Cut(u.Email, "@")
	}
	lost[NoPassword] = u.PasswordHash == ""
	for what, is := range lost {
		if is {
			o.Lost(what)
		}
	}
	return o.User(u)
}

// oneLine replaces white space and control characters, which an import refuses in a name, by
// single spaces.
func oneLine(text string) string {
	return strings.Join(strings.FieldsFunc(text, func(r rune) bool { return unicode.IsSpace(r) || unicode.IsControl(r) }), " ")
}

// eachOf calls do with each element of the array that the member name of the outermost
// object has, and with where it is. An array of such objects is read like one of them.
func eachOf(in io.Reader, name string, do func(at string, value jsontext.Value) error) error {
	text, start := withoutBOM(in)
	d := jsontext.NewDecoder(text, jsontext.AllowDuplicateNames(true))
	if d.PeekKind() == '[' {
		if _, err := d.ReadToken(); err != nil {
			return fmt.Errorf("%w: %w", errShape, err)
		}
	}
	found := false
	at := func(offset int64, value jsontext.Value) error { return do(fmt.Sprintf("byte %d", start+offset), value) }
	for d.PeekKind() == '{' {
		has, err := eachOfObject(d, name, at)
		if err != nil {
			return err
		}
		found = found || has
	}
	if kind := d.PeekKind(); kind == ']' {
		if _, err := d.ReadToken(); err != nil {
			return fmt.Errorf("%w: %w", errShape, err)
		}
	}
	if _, err := d.ReadToken(); !errors.Is(err, io.EOF) {
		return fmt.Errorf("%w: at byte %d", errShape, start+d.InputOffset())
	}
	if !found {
		return fmt.Errorf("%w: it has no %q", errShape, name)
	}
	return nil
}

func eachOfObject(d *jsontext.Decoder, name string, do func(offset int64, value jsontext.Value) error) (found bool, err error) {
	if _, err := d.ReadToken(); err != nil {
		return false, fmt.Errorf("%w: %w", errShape, err)
	}
	for d.PeekKind() != '}' {
		member, err := d.ReadToken()
		if err != nil {
			return found, fmt.Errorf("%w: %w", errShape, err)
		}
		if member.String() != name || d.PeekKind() != '[' {
			if err := d.SkipValue(); err != nil {
				return found, fmt.Errorf("%w: %w", errShape, err)
			}
			continue
		}
		found = true
		if err := eachElement(d, do); err != nil {
			return found, err
		}
	}
	_, err = d.ReadToken()
	return found, err
}

func eachElement(d *jsontext.Decoder, do func(offset int64, value jsontext.Value) error) error {
	if _, err := d.ReadToken(); err != nil {
		return fmt.Errorf("%w: %w", errShape, err)
	}
	for d.PeekKind() != ']' {
		value, err := d.ReadValue()
		if err != nil {
			return fmt.Errorf("%w: %w", errShape, err)
		}
		if err := do(d.InputOffset()-int64(len(value)), value); err != nil {
			return err
		}
	}
	_, err := d.ReadToken()
	return err
}

// base64Form returns bytes that are in base64 of any form, URL-safe or not, padded or not, in
// the form of PHC strings.
func base64Form(text string) (string, error) {
	text = strings.NewReplacer("-", "+", "_", "/").Replace(strings.TrimRight(text, "="))
	data, err := base64.RawStdEncoding.DecodeString(text)
	if err != nil {
		return "", fmt.Errorf("invalid base64: %w", err)
	}
	return base64.RawStdEncoding.EncodeToString(data), nil
}

// ms returns the time of milliseconds since 1970, or zero for none.
func ms(n int64) time.Time {
	if n <= 0 {
		return time.Time{}
	}
	return time.UnixMilli(n).UTC()
}
