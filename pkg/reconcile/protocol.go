package reconcile

import (
	"fmt"
	"time"

	"github.com/headgate/headgate/pkg/event"
)

// OutboxRetention is how long outboxes keep published rows: an event that was lost
// longer ago cannot be published again.
const OutboxRetention = 7 * 24 * time.Hour

// RecordRetention is how long consumed-event records are worth keeping: longer
// than outboxes keep the events.
const RecordRetention = OutboxRetention + 24*time.Hour

// Watermark says what a producer has published on one stream.
type Watermark struct {
	Producer string      `json:"producer"`
	Topic    event.Topic `json:"topic"`
	At       time.Time   `json:"at"`
	// Seq is the sequence number up to which every event was published.
	Seq int64 `json:"seq"`
	// Hours are the checksums of the hours that the outbox still holds.
	Hours []HourlyChecksum `json:"hours"`
}

// HourlyChecksum counts the events whose ids were made in one hour. Two sides with
// the same count and sum have the same events.
type HourlyChecksum struct {
	Hour    int64  `json:"hour"`    // since 1970, in UTC
	Count   int64  `json:"count"`   // of events
	Sum     string `json:"sum"`     // of 56-bit hashes of their ids, in decimal
	LastSeq int64  `json:"lastSeq"` // the highest sequence number among them
}

// matches reports whether both checksums are those of the same events.
func (c HourlyChecksum) matches(other HourlyChecksum) bool {
	return c.Count == other.Count && c.Sum == other.Sum
}

// SeqRange is a range of sequence numbers, both ends included.
type SeqRange struct {
	First int64 `json:"first"`
	Last  int64 `json:"last"`
}

// RepublishRequest asks a producer for the events that a consumer group lacks.
type RepublishRequest struct {
	Group string `json:"group"`
	// CaughtUp is the time up to which the group has acknowledged everything on
	// the stream: what was published before it and has no record was lost.
	CaughtUp time.Time  `json:"caughtUp"`
	Ranges   []SeqRange `json:"ranges,omitempty"`
	Hours    []int64    `json:"hours,omitempty"` // whose checksums differ
}

func (r RepublishRequest) empty() bool { return len(r.Ranges) == 0 && len(r.Hours) == 0 }

// watermarksKey is the Redis hash with the watermarks of a topic, by producer.
func watermarksKey(topic event.Topic) string { return "watermark:published:" + string(topic) }

// requestsKey is the Redis hash with the requests to republish a producer's events
// on a topic, by consumer group.
func requestsKey(topic event.Topic, producer string) string {
	return "republish:requested:" + string(topic) + ":" + producer
}

// HourSQL returns the SQL expression for the hour, counted from 1970 in UTC, in
// which the UUIDv7 in column was made. RFC 9562: its first 48 bits are the time in
// milliseconds.
func HourSQL(column string) string {
	return `(('x' || translate(left(` + column + `::text, 13), '-', ''))::bit(48)::bigint / 3600000)`
}

// HashSQL returns the SQL expression for a 56-bit hash of the UUID in column. Two
// sets of ids with the same numeric sum of hashes are the same.
func HashSQL(column string) string {
	return `('x' || encode(substr(sha256(uuid_send(` + column + `)), 1, 7), 'hex'))::bit(56)::bigint`
}

// HourIDs returns the bounds of the UUIDv7s that were made in an hour since 1970:
// the lowest possible one, and the lowest of the next hour.
func HourIDs(hour int64) (low, high string) {
	bound := func(hour int64) string {
		ms := fmt.Sprintf("%012x", hour*time.Hour.Milliseconds())
		return ms[:8] + "-" + ms[8:] + "-0000-0000-000000000000"
	}
	return bound(hour), bound(hour + 1)
}
