// Package reconcile finds events that were lost between a producer's outbox and a
// consumer's database, and has them published again. Redis is a transport: a
// flush, a failover or a power cut can remove entries from a stream after the
// outbox has marked them published. The protocol makes such a loss visible, names
// it, and repairs it.
//
// # The protocol
//
//   - Sequence number. The outbox's relay numbers a producer's events on one
//     stream 1, 2, 3 without a gap, and commits the number before it publishes.
//   - Published watermark. Every few seconds a [Producer] posts a [Watermark] in
//     Redis: the sequence number up to which it has published everything on a
//     stream, with an hourly checksum for each hour that the outbox still holds.
//   - Hourly checksum. Count and hash sum of the events whose ids, UUIDv7, were
//     made in one hour. Equal checksums mean equal sets of events, which sequence
//     numbers alone do not prove: a restored backup can assign a number twice.
//   - Consumed-event record. A consumer writes one with [Records] for each event
//     that it needs nothing more from: handled, not relevant, or a dead letter.
//   - Gap. A [Consumer] stores the watermarks in its own database and compares
//     them with its records. Missing sequence numbers up to the watermark are a
//     gap, and so is an hour whose checksum differs.
//   - Republish request. The Consumer posts its gaps in Redis as a
//     [RepublishRequest]. The Producer reads it and marks those outbox rows as
//     unpublished, and the relay publishes them again.
//
// # What is stored where
//
// The numbers and checksums of a producer are tables of its outbox, and commit with
// the rows that they count. Records, and the watermarks as last seen, are tables of
// the consumer ([RecordsSchema], [WatermarksSchema]), so [Gaps] can prove
// completeness afterwards with neither Redis nor the producer at hand. Redis holds
// one hash of watermarks for each topic and one hash of requests for each topic and
// producer.
//
// # What may be lost
//
// The Redis keys: each side posts them again at its next interval. A consumed-event
// record: its event counts as missing, is delivered once more, and idempotent
// handlers ignore it. Outbox rows may not be lost before every consumer has a
// record; the outbox keeps them for [OutboxRetention], and a gap older than that
// stays open.
//
// # Late is not lost
//
// An event without a record may still be in the stream, behind a backlog or an
// outage. So a request carries the time up to which the consumer group has
// acknowledged everything on the stream, and the Producer publishes again only
// what was published before that time. A backlog causes no duplicates.
package reconcile

import (
	"embed"

	"github.com/headgate/headgate/pkg/postgres"
)

//go:embed migrations
var migrations embed.FS

// RecordsSchema returns the migrations of the consumed-event records. Its version
// table has the name under which databases already know it.
func RecordsSchema() postgres.Schema {
	return postgres.NewSchema("receipts", migrations, "migrations/records")
}

// WatermarksSchema returns the migrations of the watermarks that a consumer has
// seen. A service whose own tables are its records has this schema and a view
// named consumed_events with the columns topic, producer, seq and event_id, in
// place of RecordsSchema. Its version table has the name under which databases
// already know it.
func WatermarksSchema() postgres.Schema {
	return postgres.NewSchema("ledger", migrations, "migrations/watermarks")
}
