package bus

import (
	"cmp"
	"math"
	"strconv"
	"strings"
	"time"
)

// entryID is the id of a stream entry: Redis's time in milliseconds and a number
// within that millisecond.
type entryID struct{ ms, n int64 }

func entryAt(t time.Time) entryID { return entryID{ms: t.UnixMilli()} }

func parseEntryID(text string) entryID {
	ms, n, _ := strings.Cut(text, "-")
	var id entryID
	id.ms, _ = strconv.ParseInt(ms, 10, 64) // Redis makes ids, so they are always valid.
	id.n, _ = strconv.ParseInt(n, 10, 64)
	return id
}

func (id entryID) compare(other entryID) int {
	return cmp.Or(cmp.Compare(id.ms, other.ms), cmp.Compare(id.n, other.n))
}

// previous returns the largest id before id, or the zero id.
func (id entryID) previous() entryID {
	switch {
	case id.n > 0:
		return entryID{ms: id.ms, n: id.n - 1}
	case id.ms > 0:
		return entryID{ms: id.ms - 1, n: math.MaxInt64}
	}
	return id
}

func (id entryID) String() string {
	return strconv.FormatInt(id.ms, 10) + "-" + strconv.FormatInt(id.n, 10)
}
