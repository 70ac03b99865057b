package testkit

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/headgate/headgate/pkg/event"
)

// HostileEvents returns copies of e, by what is wrong with each, with ids of their own. A
// stranger with access to a stream could publish them: their texts are too long to be
// indexed, contain what Postgres rejects, or have values at the ends of their ranges.
func HostileEvents(e event.Event) map[string]event.Event {
	events := map[string]event.Event{}
	add := func(fault string, change func(*event.Event)) {
		hostile := e
		hostile.ID = uuid.Must(uuid.NewV7()).String()
		hostile.ProducerSeq = int64(len(events) + 1)
		change(&hostile)
		events[fault] = hostile
	}
	for size, long := range map[string]string{
		"9,000 characters": incompressible(9000), "NUL": "a\x00b", "other bytes": "a\xff\x01\u2028b",
	} {
		for field, set := range map[string]func(*event.Event){
			"producer":       func(e *event.Event) { e.Producer = long },
			"epoch":          func(e *event.Event) { e.ProducerEpoch = long },
			"subject":        func(e *event.Event) { e.Subject = long },
			"actor":          func(e *event.Event) { e.Actor = event.Actor{Type: long, ID: long} },
			"outcome":        func(e *event.Event) { e.Outcome = event.Outcome(long) },
			"ip":             func(e *event.Event) { e.IP = long },
			"user agent":     func(e *event.Event) { e.UserAgent = long },
			"request id":     func(e *event.Event) { e.RequestID = long },
			"correlation id": func(e *event.Event) { e.CorrelationID, e.CausationID, e.TraceParent = long, long, long },
			"email":          func(e *event.Event) { e.Data = withTexts(e.Data, long) },
		} {
			add(field+": "+size, set)
		}
	}
	add("texts of 1 MiB", func(e *event.Event) { e.Data = withTexts(e.Data, incompressible(1<<20)) })
	add("name of 9,000 characters", func(e *event.Event) { e.Name = "user." + strings.Repeat("x", 9000) + ".v1" })
	add("highest sequence number", func(e *event.Event) { e.ProducerSeq = math.MaxInt64 })
	add("the year 1", func(e *event.Event) { e.OccurredAt = time.Date(1, 1, 2, 0, 0, 0, 0, time.UTC) })
	add("the year 9999", func(e *event.Event) { e.OccurredAt = time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC) })
	add("data of 6 MiB", func(e *event.Event) { e.Data = fmt.Appendf(nil, `{"email":%q}`, incompressible(6<<20)) })
	add("data 9,000 deep", func(e *event.Event) {
		e.Data = []byte(strings.Repeat(`{"email":`, 9000) + "1" + strings.Repeat("}", 9000))
	})
	add("data with 100,000 fields", func(e *event.Event) {
		fields := make(map[string]int, 100_000)
		for i := range 100_000 {
			fields[fmt.Sprint("field ", i)] = i
		}
		e.Data, _ = json.Marshal(fields) // It always encodes.
	})
	return events
}

// withTexts returns data with value in each field that is a text.
func withTexts(data []byte, value string) []byte {
	var fields map[string]any
	if err := json.Unmarshal(data, &fields); err != nil {
		return data
	}
	for name, old := range fields {
		if text, ok := old.(string); ok && !strings.HasPrefix(text, "s1.") && !strings.Contains(name, "xpires") {
			fields[name] = value
		}
	}
	changed, _ := json.Marshal(fields) // It was decoded from JSON.
	return changed
}

// incompressible returns a text of n bytes. Postgres compresses repeated text before it
// checks the size of an index entry.
func incompressible(n int) string {
	data := make([]byte, n/2+1)
	_, _ = rand.Read(data) // It never fails.
	return hex.EncodeToString(data)[:n]
}
