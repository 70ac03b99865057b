package password

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"regexp"
	"strings"
)

// Pepper is a secret that passwords are keyed with. It is not in the database.
type Pepper struct {
	ID     string
	secret []byte
}

// Peppers are the pepper for new hashes, followed by those of existing hashes.
type Peppers []Pepper

var pepperID = regexp.MustCompile(`^[A-Za-z0-9_-]{1,32}$`)

const pepperBytes = 32

// ParsePeppers parses a comma-separated list of id:secret, which may be empty.
func ParsePeppers(text string) (Peppers, error) {
	if text == "" {
		return nil, nil
	}
	var peppers Peppers
	for part := range strings.SplitSeq(text, ",") {
		id, secret, ok := strings.Cut(strings.TrimSpace(part), ":")
		if _, again := peppers.find(id); !ok || again || !pepperID.MatchString(id) {
			return nil, errors.New("use a comma-separated list of id:secret; each id is unique and matches [A-Za-z0-9_-]+")
		}
		if len(secret) < pepperBytes {
			return nil, errors.New("each secret must have at least 32 characters")
		}
		peppers = append(peppers, Pepper{ID: id, secret: []byte(secret)})
	}
	return peppers, nil
}

func (p Peppers) find(id string) (Pepper, bool) {
	for _, pepper := range p {
		if pepper.ID == id {
			return pepper, true
		}
	}
	return Pepper{}, false
}

// apply returns the password keyed with the pepper.
func (p Pepper) apply(password []byte) []byte {
	mac := hmac.New(sha256.New, p.secret)
	mac.Write(password)
	return []byte(base64.RawStdEncoding.EncodeToString(mac.Sum(nil)))
}
