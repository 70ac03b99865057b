package bus

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"
)

// Mark is a place in a stream: the id of the last entry that was added to it.
type Mark struct{ id entryID }

// Before reports whether m is an earlier place than other.
func (m Mark) Before(other Mark) bool { return m.id.compare(other.id) < 0 }

// MarkAt returns the place before every entry that was added at t or later, by the clock of
// Redis.
func MarkAt(t time.Time) Mark { return Mark{entryAt(t).previous()} }

// Time returns when the entry at m was added, by the clock of Redis, in milliseconds.
func (m Mark) Time() time.Time { return time.UnixMilli(m.id.ms) }

// String returns what ParseMark reads.
func (m Mark) String() string { return m.id.String() }

var errMark = errors.New("want the id of a stream entry, such as 1700000000000-0")

// ParseMark reads the only spelling of a place that String returns.
func ParseMark(text string) (Mark, error) {
	m := Mark{parseEntryID(text)}
	if m.String() != text || m.id.ms < 0 || m.id.n < 0 {
		return Mark{}, errMark
	}
	return m, nil
}

// Position is the progress of a consumer group in a stream.
type Position struct {
	// End is the last entry that was added to the stream, deleted or not.
	End Mark
	// HandledUntil is the time up to which the group has acknowledged every entry, by
	// the ids of the entries.
	HandledUntil time.Time

	exists       bool // the stream and the group
	acknowledged entryID
	pending      bool // acknowledged is the first entry that is not
	atEnd        bool
}

// Covers reports whether the group has acknowledged every entry that the stream had
// when it ended at m, and that still exists.
func (p Position) Covers(m Mark) bool {
	switch order := m.id.compare(p.acknowledged); {
	case !p.exists:
		return false
	case p.atEnd:
		return true
	case p.pending:
		return order < 0
	default:
		return order <= 0
	}
}

// Exists reports whether there is a stream with the group.
func (p Position) Exists() bool { return p.exists }

// GroupPosition returns the position of a consumer group. It reads the end of the
// stream before the progress of the group. It covers nothing while the group or the
// stream does not exist.
func GroupPosition(ctx context.Context, client redis.UniversalClient, topic, group string) (Position, error) {
	info, err := client.XInfoStream(ctx, topic).Result()
	if noStream(err) {
		return Position{}, nil
	}
	if err != nil {
		return Position{}, fmt.Errorf("inspect %s: %w", topic, err)
	}
	groups, err := groupsOf(ctx, client, topic)
	if err != nil {
		return Position{}, err
	}
	p := Position{End: Mark{parseEntryID(info.LastGeneratedID)}}
	g, ok := groups[group]
	if !ok {
		return p, nil
	}
	p.exists, p.acknowledged, p.pending = true, g.acknowledged, g.pending > 0
	p.HandledUntil = time.UnixMilli(g.acknowledged.ms)
	// Redis does not know the lag once entries were deleted, so compare with the
	// last entry that exists.
	p.atEnd = g.pending == 0 && (info.Length == 0 || parseEntryID(info.LastEntry.ID).compare(g.acknowledged) <= 0)
	return p, nil
}
