package realtime

import (
	"errors"
	"regexp"
	"strings"

	"github.com/headgate/headgate/pkg/bus"
)

// The streams that a hub follows.
const (
	userStream = iota
	hintStream
	streams
)

// marks are places, one in each stream.
type marks [streams]bus.Mark

// Position says what a client has seen: everything up to a place in each stream. It means the
// same in every gateway. The epoch changes when Redis lost its data.
type Position struct {
	epoch string
	at    marks
}

var (
	errPosition = errors.New("want the id of a message")
	epochForm   = regexp.MustCompile(`^[0-9a-f]{16}$`)
)

// ParsePosition reads the only spelling that String returns.
func ParsePosition(text string) (Position, error) {
	parts := strings.Split(text, ".")
	if len(parts) != 1+streams || !epochForm.MatchString(parts[0]) {
		return Position{}, errPosition
	}
	p := Position{epoch: parts[0]}
	for i := range p.at {
		at, err := bus.ParseMark(parts[1+i])
		if err != nil {
			return Position{}, errPosition
		}
		p.at[i] = at
	}
	return p, nil
}

// String returns the id of the last message that a client at p has seen.
func (p Position) String() string {
	return strings.Join([]string{p.epoch, p.at[userStream].String(), p.at[hintStream].String()}, ".")
}
