package event

import (
	"fmt"
	"time"
)

// What producers and consumers tell each other of completeness. It travels in
// Redis keys, not on the streams, and is said anew every few seconds, so it may
// be lost with impunity.

// Ledger is a producer's account of what it has put on a stream. Its events on
// it are numbered 1, 2, 3 and so on, without a gap.
type Ledger struct {
	Producer string    `json:"producer"`
	Topic    Topic     `json:"topic"`
	At       time.Time `json:"at"`
	// Head is the number up to which every event was published for good.
	Head int64 `json:"head"`
	// Hours are the tallies of the hours that the outbox still holds.
	Hours []Tally `json:"hours"`
}

// Tally counts the events whose ids were made in one hour. Two sides that have
// the same tally have the same events.
type Tally struct {
	Hour    int64  `json:"hour"`    // since 1970, in UTC
	Count   int64  `json:"count"`   // of events
	Sum     string `json:"sum"`     // of 56-bit hashes of their ids, in decimal
	LastSeq int64  `json:"lastSeq"` // the highest number among them
}

// Missing is a consumer's account of what has not reached it.
type Missing struct {
	Group string `json:"group"`
	// CaughtUp is the time up to which the group has settled all that was on the
	// stream: what was published before it and is missing has been lost.
	CaughtUp time.Time  `json:"caughtUp"`
	Ranges   [][2]int64 `json:"ranges,omitempty"` // of numbers, both ends included
	Hours    []int64    `json:"hours,omitempty"`  // whose tallies differ
}

// LedgerKey is the Redis hash with the ledgers of a topic, by producer.
func LedgerKey(topic Topic) string { return "ledger:sent:" + string(topic) }

// MissingKey is the Redis hash with what is missing of a producer's events on a
// topic, by group.
func MissingKey(topic Topic, producer string) string {
	return "ledger:missing:" + string(topic) + ":" + producer
}

// HourIDs returns the bounds of the ids, UUIDv7, that were made in an hour since
// 1970: the first that could be, and the first of the next hour.
func HourIDs(hour int64) (low, high string) {
	bound := func(hour int64) string {
		ms := fmt.Sprintf("%012x", hour*time.Hour.Milliseconds())
		return ms[:8] + "-" + ms[8:] + "-0000-0000-000000000000"
	}
	return bound(hour), bound(hour + 1)
}
