package dump

import (
	"bufio"
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"
)

// auth0User is a line of a bulk export, whose fields the exporter has chosen, or of the export
// extension, whose names have capitals and spaces. encoding/json ignores case.
type auth0User struct {
	UserID        string `json:"user_id"`
	ID            string `json:"id"`
	Email         string
	Verified      *bool `json:"email_verified"`
	EmailVerified *bool `json:"email verified"`
	Name          string
	Nickname      string
	Created       string `json:"created_at"`
	CreatedAt     string `json:"created at"`
	Blocked       bool
	Multifactor   []any
	Identities    []struct{ Provider string }
	AppMetadata   map[string]any `json:"app_metadata"`
	UserMetadata  map[string]any `json:"user_metadata"`
}

// Auth0Hashes finds password hashes in the file of Auth0's support. It keeps where they are,
// not the hashes.
type Auth0Hashes struct {
	file  io.ReaderAt
	lines map[[16]byte]lineAt
}

type lineAt struct {
	offset int64
	length int32
}

type auth0Hash struct {
	ID struct {
		OID string `json:"$oid"`
	} `json:"_id"`
	PasswordHash string
}

type seekable interface {
	io.Reader
	io.ReaderAt
}

// IndexAuth0Hashes reads the file of hashes: NDJSON with _id and passwordHash.
func IndexAuth0Hashes(file seekable) (Auth0Hashes, error) {
	h := Auth0Hashes{file, map[[16]byte]lineAt{}}
	err := eachLine(file, func(n int, offset int64, line []byte) error {
		if len(bytes.TrimSpace(line)) == 0 {
			return nil
		}
		var hash auth0Hash
		if err := json.Unmarshal(line, &hash); err != nil || hash.ID.OID == "" {
			return fmt.Errorf("%w: line %d: want _id and passwordHash", errShape, n)
		}
		h.lines[auth0Key(hash.ID.OID)] = lineAt{offset, int32(len(line))} //nolint:gosec // eachLine bounds it.
		return nil
	})
	return h, err
}

func auth0Key(id string) [16]byte {
	sum := sha256.Sum256([]byte(id))
	return [16]byte(sum[:16])
}

// take returns the hash of a user, or none.
func (h Auth0Hashes) take(id string) (string, error) {
	key := auth0Key(strings.TrimPrefix(id, "auth0|"))
	at, ok := h.lines[key]
	if !ok {
		return "", nil
	}
	delete(h.lines, key)
	line := make([]byte, at.length)
	if _, err := h.file.ReadAt(line, at.offset); err != nil {
		return "", fmt.Errorf("read password hash: %w", err)
	}
	var hash auth0Hash
	err := json.Unmarshal(line, &hash)
	return hash.PasswordHash, err
}

// Auth0 reads the NDJSON file of a bulk export, and takes the hashes of its users.
func Auth0(in io.Reader, hashes Auth0Hashes, out Out) error {
	kind := source{id: "user_id"}
	err := eachLine(in, func(n int, _ int64, line []byte) error {
		if len(bytes.TrimSpace(line)) == 0 {
			return nil
		}
		at := fmt.Sprintf("line %d", n)
		var u auth0User
		if err := json.Unmarshal(line, &u); err != nil {
			if syntax, ok := errors.AsType[*json.SyntaxError](err); ok && !kind.found {
				return fmt.Errorf("%w: %s: want NDJSON: %w", errShape, at, syntax)
			}
			out.LeftOut(at, u.Email, err.Error())
			return nil
		}
		id := cmp.Or(u.UserID, u.ID)
		provider, _, _ := strings.Cut(id, "|")
		if provider == id { // The id is of something else.
			provider = ""
		}
		if err := kind.user(at, provider); err != nil {
			return err
		}
		hash, err := hashes.take(id)
		if err != nil {
			return fmt.Errorf("%s: %w", at, err)
		}
		created, err := auth0Time(cmp.Or(u.Created, u.CreatedAt))
		if err != nil {
			out.LeftOut(at, cmp.Or(u.Email, id), err.Error())
			return nil
		}
		other := !strings.HasPrefix(id, "auth0|")
		for _, identity := range u.Identities {
			other = other || identity.Provider != "auth0"
		}
		lost := losses{}
		lost[LostProviders] = other
		lost[LostFactors] = len(u.Multifactor) > 0
		lost[LostMetadata] = len(u.AppMetadata)+len(u.UserMetadata) > 0
		verified := cmp.Or(u.Verified, u.EmailVerified)
		name := u.Name
		if name == u.Email { // Auth0 fills it in.
			name = u.Nickname
		}
		return out.send(at, User{
			Email: u.Email, EmailVerified: verified != nil && *verified, Name: name, Disabled: u.Blocked,
			PasswordHash: hash, CreatedAt: created,
		}, id, lost)
	})
	err = kind.end(err)
	for range hashes.lines {
		out.Lost(UnmatchedHash)
	}
	return err
}

func auth0Time(text string) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	t, err := time.Parse(time.RFC3339Nano, text)
	if err != nil {
		return t, errors.New("created_at: invalid timestamp")
	}
	return t.UTC(), nil
}

// maxLine is the size of the longest line that is read.
const maxLine = 16 << 20

// eachLine calls do with each line, its number, where it begins, and its end.
func eachLine(in io.Reader, do func(n int, offset int64, line []byte) error) error {
	text, offset := withoutBOM(in)
	lines := bufio.NewScanner(text)
	lines.Buffer(make([]byte, 64<<10), maxLine)
	lines.Split(func(data []byte, atEOF bool) (int, []byte, error) {
		if i := bytes.IndexByte(data, '\n'); i >= 0 {
			return i + 1, data[:i+1], nil
		}
		if atEOF && len(data) > 0 {
			return len(data), data, nil
		}
		return 0, nil, nil
	})
	n := 0
	for lines.Scan() {
		n++
		line := lines.Bytes()
		if err := do(n, offset, line); err != nil {
			return err
		}
		offset += int64(len(line))
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("line %d: %w", n+1, err)
	}
	return nil
}
