package reconcile

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/headgate/headgate/pkg/event"
)

// OutboxRetention is how long outboxes keep published rows at least. They keep a row
// for longer until every consumer has consumed it.
const OutboxRetention = 7 * 24 * time.Hour

// RecordRetention is how long consumed-event records are worth keeping: longer
// than outboxes keep the events.
const RecordRetention = OutboxRetention + 24*time.Hour

// Watermark says what a producer has published on one stream. The embedded
// EpochWatermark is that of the current epoch. A producer of the previous release
// knows no epochs: it leaves First 0, and Epoch empty.
type Watermark struct {
	Producer string      `json:"producer"`
	Topic    event.Topic `json:"topic"`
	At       time.Time   `json:"at"` // by the producer's clock; only compared for equality
	// Interval is how often the producer posts watermarks. A producer of the previous
	// release leaves it 0.
	Interval time.Duration `json:"interval,omitempty"`
	EpochWatermark
	// Closed are the earlier epochs.
	Closed []EpochWatermark `json:"closed,omitempty"`
	// Answers counts, for each consumer group, the republish requests that the
	// producer had answered completely.
	Answers map[string]int64 `json:"answers,omitempty"`
	// Answered says, for each consumer group, which request was answered last.
	Answered map[string]Answered `json:"answered,omitempty"`
	// Checks are, for each consumer group that has not compared this producer, the check
	// that the watermark answers. The previous release leaves it nil.
	Checks map[string]string `json:"checks"`
	// Consumers are the consumed watermarks as the producer's database has them, so
	// that they survive the loss of both Redis and the consumer's database.
	Consumers map[string]ConsumedWatermark `json:"consumers,omitempty"`
}

// Answered says which request was answered.
type Answered struct {
	Digest string `json:"digest"` // of the request
	// Partly says that the chunk of an hour was too large for one answer. It has to be
	// requested again with the ids that the group has by then.
	Partly bool `json:"partly,omitempty"`
}

// EpochWatermark says what was published in one epoch of a producer's numbers.
type EpochWatermark struct {
	Epoch string `json:"epoch,omitempty"`
	// First is the lowest number that the outbox can republish: it has no row with a
	// lower one, either because consumers had consumed it or because the epoch began
	// later. What was lost with a producer's database counts as offered for as long as
	// rows are kept.
	First int64 `json:"first,omitempty"`
	// Seq is the sequence number up to which every event was published.
	Seq int64 `json:"seq"`
	// Last is the last number of a closed epoch in the outbox. Known is the highest
	// number that anybody knows of; above Last if the outbox was restored.
	Last  int64 `json:"last,omitempty"`
	Known int64 `json:"known,omitempty"`
	// EndUnknown says that nobody knows whether there were events after Known: the
	// outbox was restored while Redis could not tell.
	EndUnknown bool `json:"endUnknown,omitempty"`
	// Hours are the checksums of the hours that the outbox still holds.
	Hours []HourlyChecksum `json:"hours"`
}

// epochs returns the watermarks of all epochs; the current one is the last.
func (w Watermark) epochs() []EpochWatermark {
	return append(append([]EpochWatermark{}, w.Closed...), w.EpochWatermark)
}

func (w Watermark) byEpoch() map[string]EpochWatermark {
	epochs := map[string]EpochWatermark{}
	for _, e := range w.epochs() {
		epochs[e.Epoch] = e
	}
	return epochs
}

// hasEpochs says that the producer's release knows epochs.
func (w Watermark) hasEpochs() bool { return w.First > 0 }

// end returns the number up to which a consumer must account for every number.
// Those above Last were lost together with a producer's database.
func (w EpochWatermark) end() int64 {
	if w.Known > 0 && w.Seq >= w.Last {
		return max(w.Seq, w.Known)
	}
	return w.Seq
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

// maxSeq is the end of a range whose end nobody knows. The next number exists as well.
const maxSeq = math.MaxInt64 - 1

// SeqRange is a range of sequence numbers, both ends included.
type SeqRange struct {
	First int64 `json:"first"`
	Last  int64 `json:"last"`
}

func (r SeqRange) count() int64 { return r.Last - r.First + 1 }

// EpochRange is a range of the numbers of one epoch.
type EpochRange struct {
	Epoch string `json:"epoch,omitempty"`
	SeqRange
}

// RepublishRequest asks a producer for the events that a consumer group lacks.
type RepublishRequest struct {
	Group string `json:"group"`
	// Answers is the group's number of answers in the watermark that the request is
	// based on. The group had acknowledged everything that was on the stream when it
	// read that watermark. The producer ignores a request with another number: what
	// it has republished since may still be in the stream.
	Answers int64        `json:"answers"`
	Ranges  []EpochRange `json:"ranges,omitempty"`
	Chunk   *HourChunk   `json:"chunk,omitempty"`
	// CaughtUp is set by the previous release only, which knows neither epochs nor
	// answers: the time up to which the group has acknowledged everything.
	CaughtUp time.Time `json:"caughtUp,omitzero"`
}

func (r RepublishRequest) empty() bool { return len(r.Ranges) == 0 && r.Chunk == nil }

// requestEvents is how many events a request may ask for. The next request follows when
// the group has acknowledged them, so a large gap neither fills Redis nor keeps new events
// waiting for long.
const requestEvents = 100_000

// add adds the ranges of an epoch, as far as requestEvents allows.
func (r *RepublishRequest) add(epoch string, ranges []SeqRange) {
	left := int64(requestEvents)
	for _, asked := range r.Ranges {
		left -= asked.count()
	}
	for _, asked := range ranges {
		asked.Last = min(asked.Last, asked.First+left-1)
		if left -= asked.count(); asked.First > asked.Last {
			return
		}
		r.Ranges = append(r.Ranges, EpochRange{epoch, asked})
	}
}

// Digest returns what distinguishes a request from one for other events. Instances of a
// consumer that lack the same events have the same digest.
func (r RepublishRequest) Digest() string {
	data, _ := json.Marshal(RepublishRequest{Ranges: r.Ranges, Chunk: r.Chunk}) // It always encodes.
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:16])
}

// HourChunk asks for the events of an hour, or of a part of it, that the group lacks
// although it lacks no number. From and Until bound the ids; Until is excluded.
type HourChunk struct {
	Epoch string   `json:"epoch,omitempty"`
	Hour  int64    `json:"hour"`
	From  string   `json:"from"`
	Until string   `json:"until"`
	IDs   []string `json:"ids"` // that the group has
}

// ConsumedWatermark says what a consumer group has consumed from a stream.
type ConsumedWatermark struct {
	// Generation changes when the group's database was found to be an older copy.
	Generation string `json:"generation"`
	// Earlier are earlier generations. Only the copies in the producers' databases have
	// them.
	Earlier []string `json:"earlier,omitempty"`
	// HandledUntil is the time, by the stream, up to which the group had acknowledged
	// everything.
	HandledUntil time.Time `json:"handledUntil"`
	// Producers has, by producer and epoch, what was consumed.
	Producers map[string]map[string]Consumed `json:"producers"`
	// Uncompared are the producers that posted nothing during the check of the group's
	// database. They must not store this watermark: it would replace what they know of the
	// database. They answer the check with what they know.
	Uncompared []string `json:"uncompared,omitempty"`
	Check      string   `json:"check,omitempty"` // names the check
}

// Consumed is how much of an epoch a group has consumed.
type Consumed struct {
	Seq  int64 `json:"seq"`  // up to which it needs nothing more
	Seen int64 `json:"seen"` // the highest number of which it has a record
}

// watermarkKey is the Redis key with the watermark of a producer on a topic. It is a key for
// each producer, because Redis can keep others from writing a key, not a part of it. In a
// cluster it is in the stream's slot: the relay reads it before it continues an epoch, also
// while other shards are down.
func watermarkKey(topic event.Topic, producer string) string {
	return "watermark:published:{" + string(topic) + "}:" + producer
}

// consumedKey is the Redis hash with the consumed watermarks of a topic, by group. In a
// cluster it is in the stream's slot: numbers can be checked while other shards are down.
func consumedKey(topic event.Topic) string { return "watermark:consumed:{" + string(topic) + "}" }

// requestsKey is the Redis hash with the requests to republish a producer's events
// on a topic, by consumer group.
func requestsKey(topic event.Topic, producer string) string {
	return "republish:requested:" + string(topic) + ":" + producer
}

// KnownKey is the Redis sorted set with the highest sequence numbers of a producer that were
// ever added to a stream, by epoch. The publisher updates it atomically with the entries, so in
// a cluster it must be in the stream's slot. Only the producer may write it.
func KnownKey(topic, producer string) string { return previousKnownKey(topic) + ":" + producer }

// previousKnownKey is the one sorted set for all producers that the previous release writes.
func previousKnownKey(topic string) string { return "published:{" + topic + "}" }

// KnownMember is the member of KnownKey for an epoch of a producer.
func KnownMember(producer, epoch string) string { return producer + " " + epoch }

// parseKnownMember is the inverse of KnownMember.
func parseKnownMember(member string) (producer, epoch string) {
	producer, epoch, _ = strings.Cut(member, " ")
	return producer, epoch
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
