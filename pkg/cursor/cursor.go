// Package cursor says where a page of a list ended. Lists are newest first: by the time of
// creation, and by id where times are equal.
package cursor

import (
	"encoding/base64"
	"errors"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"
)

// Position is the place of an item in a list. The zero value is before the first item.
type Position string

// At returns the position of an item with a time of creation, in microseconds as Postgres
// stores it, and an id. An id alone does not say when an item was created: those of imported
// accounts are chosen by others.
func At(created time.Time, id string) Position {
	return Position(strconv.FormatInt(created.UnixMicro(), 10) + separator + id)
}

// ByID returns the position of an item in a list that is ordered by ids alone.
func ByID(id string) Position { return Position(id) }

const separator = "."

// Bound returns the time and the id that every item after p is less than, compared as a row.
// That of the zero position is greater than those of all items. Bound panics if p is a position
// of ByID: a list that ignored it would begin anew with each page.
func (p Position) Bound() (created time.Time, id string) {
	if p == "" {
		return lastTime, lastID
	}
	micros, id, _ := strings.Cut(string(p), separator)
	n, err := strconv.ParseInt(micros, 10, 64)
	if err != nil {
		panic("cursor: the position says no time")
	}
	return time.UnixMicro(n).UTC(), id
}

const lastID = "ffffffff-ffff-ffff-ffff-ffffffffffff"

var (
	firstTime = time.Date(1, 1, 1, 0, 0, 0, 0, time.UTC)
	lastTime  = time.Date(9999, 12, 31, 0, 0, 0, 0, time.UTC)
)

// Encode returns p for clients, who must not interpret it.
func (p Position) Encode() string { return base64.RawURLEncoding.EncodeToString([]byte(p)) }

// ErrInvalid says that a text is not a position that Encode has returned, of a list with the
// same order.
var ErrInvalid = errors.New("invalid cursor")

// Parse returns the position that At has returned.
func Parse(text string) (Position, error) {
	decoded, err := decode(text)
	if err != nil {
		return "", err
	}
	micros, id, _ := strings.Cut(decoded, separator)
	n, err := strconv.ParseInt(micros, 10, 64)
	created := time.UnixMicro(n).UTC()
	if err != nil || !validID(id) || created.Before(firstTime) || created.After(lastTime) || string(At(created, id)) != decoded {
		return "", ErrInvalid
	}
	return Position(decoded), nil
}

// ParseID returns the position that ByID has returned.
func ParseID(text string) (Position, error) {
	decoded, err := decode(text)
	if err != nil || !validID(decoded) {
		return "", ErrInvalid
	}
	return Position(decoded), nil
}

func decode(text string) (string, error) {
	decoded, err := base64.RawURLEncoding.Strict().DecodeString(text)
	if err != nil {
		return "", ErrInvalid
	}
	return string(decoded), nil
}

// validID accepts a UUID in canonical form only: a list compares text.
func validID(text string) bool {
	id, err := uuid.Parse(text)
	return err == nil && id.String() == text
}
