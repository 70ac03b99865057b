// Package deadletter keeps the messages that a consumer could not handle in the
// service's own database, where an operator can read them: durable, queryable,
// and there when Redis is full.
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

// Detail is a dead letter with what it holds. Payload is the event with its
// sealed values masked, or the raw fields of an entry that is none.
type Detail struct {
	DeadLetter
	EntryID  string        `json:"entryId"`
	ClosedAt *time.Time    `json:"closedAt,omitempty"` // when it was replayed or discarded
	ClosedBy string        `json:"closedBy,omitempty"` // who requested the replay or discarded it
	Note     string        `json:"note,omitempty"`     // why it was discarded
	Errors   []bus.Attempt `json:"errors"`
	Payload  any           `json:"payload"`
}

// Filter chooses dead letters; empty members choose all.
type Filter struct {
	Type   string
	Reason string
	Status string
}

// ErrNotFound says that there is no dead letter with the id.
var ErrNotFound = problem.New(problem.NotFound, "dead_letter_not_found", "There is no such dead letter.")
