// Package deadletter stores the messages that a consumer could not handle in the
// consumer's own database. They are durable, can be queried, and do not depend on
// Redis. Operators list, replay and discard them over HTTP or from the command
// line. The package knows no event but its own two.
package deadletter

import (
	"time"

	"github.com/headgate/headgate/pkg/bus"
	"github.com/headgate/headgate/pkg/problem"
)

// DeadLetter is a dead letter in a list.
type DeadLetter struct {
	ID            string    `json:"id"`
	EventID       *string   `json:"eventId,omitempty"`
	Type          *string   `json:"type,omitempty"`
	Stream        string    `json:"stream"`
	Reason        string    `json:"reason"`
	Class         string    `json:"class"`
	Attempts      int       `json:"attempts"`
	FirstFailedAt time.Time `json:"firstFailedAt"`
	LastFailedAt  time.Time `json:"lastFailedAt"`
	Status        string    `json:"status"`
}

// The states of a dead letter.
const (
	Open      = "open"      // waits for an operator
	Replaying = "replaying" // a replay was requested and has no result yet
	Replayed  = "replayed"  // a replay succeeded
	Discarded = "discarded" // an operator discarded it
)

// Detail is a dead letter with its attempts and its payload: the event with
// sealed values masked, or the raw fields of an entry that could not be decoded.
type Detail struct {
	DeadLetter
	EntryID  string        `json:"entryId"`
	ClosedAt *time.Time    `json:"closedAt,omitempty"` // when it was replayed or discarded
	ClosedBy string        `json:"closedBy,omitempty"` // who requested the replay or discarded it
	Note     string        `json:"note,omitempty"`     // why it was discarded
	Errors   []bus.Attempt `json:"errors"`
	Payload  any           `json:"payload"`
}

// Filter selects dead letters. An empty field matches all; Reason matches a part
// of the reason.
type Filter struct {
	Type   string
	Reason string
	Status string
}

// statuses are those of a Filter.
var statuses = []string{"", Open, Replaying, Replayed, Discarded}

// ErrNotFound is returned if no dead letter has the id.
var ErrNotFound = problem.New(problem.NotFound, "dead_letter_not_found", "Dead letter not found.")
