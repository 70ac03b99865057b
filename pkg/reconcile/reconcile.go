// Package reconcile finds events that were lost between a producer's outbox and a
// consumer's database, and has them published again. Redis is a transport: a
// flush, a failover or a power cut can remove entries from a stream after the
// outbox has marked them published. A restore replaces a database by an older copy of
// itself. The protocol makes such a loss visible, names it, and repairs it.
//
// # The protocol
//
//   - Sequence number. The outbox's relay numbers a producer's events on one
//     stream 1, 2, 3 without a gap, and commits the number before it publishes.
//   - Epoch. A producer starts a new one when its outbox may be an older copy of
//     itself. A number and its epoch never stand for two events. Records, watermarks
//     and checksums are by epoch, so an old record cannot hide the loss of a new event.
//   - Known number. Redis has the highest number of each epoch that was ever added to
//     a stream, in the transaction that adds the entries ([KnownKey]).
//   - Published watermark. Every few seconds a [Producer] posts a [Watermark] in
//     Redis: the sequence number up to which it has published everything on a
//     stream, and the first number that it can still republish. It does so before its first
//     event, too.
//   - Hourly checksum. Count and hash sum of the events whose ids, UUIDv7, were
//     made in one hour. Equal checksums mean equal sets of events, which sequence
//     numbers alone do not prove.
//   - Consumed-event record. A consumer writes one with [Records] for each event
//     that it needs nothing more from: handled, not relevant, or a dead letter.
//   - Consumed watermark. A [Consumer] posts up to which number it has consumed
//     everything. Producers keep what a consumer has not consumed, and repeat the
//     consumed watermarks in their own, so that they outlive Redis.
//   - Gap. A [Consumer] stores the watermarks in its own database and compares
//     them with its records. Missing sequence numbers up to the watermark are a
//     gap, and so is an hour whose checksum differs.
//   - Republish request. The Consumer posts its gaps in Redis as a
//     [RepublishRequest]. The Producer reads those rows and publishes them again, in
//     bounded parts, with their numbers. What stays missing is requested again after a
//     growing pause, so it delays no other event.
//
// # What is stored where
//
// The numbers and checksums of a producer are tables of its outbox, and commit with
// the rows that they count. Records, and the watermarks as last seen, are tables of
// the consumer ([RecordsSchema], [WatermarksSchema]), so [Gaps] can prove
// completeness afterwards with neither Redis nor the producer at hand. For each topic,
// Redis holds a hash of consumed watermarks, and for each topic and producer a published
// watermark, a sorted set of known numbers and a hash of requests.
//
// # What may be lost
//
// The Redis keys: each side posts them again at its next interval. If they are lost
// while a producer's database is replaced, the producer cannot tell what it had
// published, and starts a new epoch. A consumed-event record: its event counts as
// missing, is delivered once more, and idempotent handlers ignore it. A consumer's
// database may be replaced by an older copy: see [ConsumerConfig]. It is compared with what
// Redis and each producer know of it, with a producer that is down when it comes back. Outbox rows may not be
// lost before every consumer has a record. What is lost nevertheless stays a gap until an
// operator accepts it ([Accept]).
//
// # Late is not lost
//
// An event without a record may still be in the stream, behind a backlog or an
// outage. No clock decides that. A consumer reads a watermark, then the end of the
// stream. Once its group has acknowledged everything up to that end, a number up to the
// watermark without a record is lost. A watermark also counts the requests that the
// producer has answered, and names the last one. The producer ignores a request that is based on an earlier
// count: what it has republished since may still be in the stream.
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
// named consumed_events with the columns topic, producer, epoch, seq and event_id,
// in place of RecordsSchema. Its version table has the name under which databases
// already know it.
func WatermarksSchema() postgres.Schema {
	return postgres.NewSchema("ledger", migrations, "migrations/watermarks")
}
