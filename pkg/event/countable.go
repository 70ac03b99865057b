package event

import "time"

// Countable is a payload of which one event may stand for several occurrences. Their number
// is in the payload, with the time of the first; the event has the time of the last.
//
// A payload that stands for one occurrence has neither.
type Countable interface {
	Payload
	// Counted returns the payload for n occurrences since a time.
	Counted(n int, since time.Time) Payload
}
