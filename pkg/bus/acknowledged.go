package bus

import (
	"context"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/headgate/headgate/pkg/event"
)

const (
	// acknowledgedFor is how far AcknowledgedNumbers looks back from the last entry that
	// the group has read, by the clock of Redis.
	acknowledgedFor   = time.Minute
	acknowledgedPage  = 1000
	acknowledgedPages = 50
)

// AcknowledgedNumbers returns, by producer and epoch, the highest sequence number among the
// entries of a stream that a consumer group has acknowledged in the last minute before it
// stopped. It looks at the last 50,000 entries at most, and leaves out those that the stream
// has no longer. It returns nothing if there is no such group.
func AcknowledgedNumbers(ctx context.Context, client redis.UniversalClient, topic, name string) (map[string]map[string]int64, error) {
	groups, err := groupsOf(ctx, client, topic)
	if err != nil {
		return nil, err
	}
	g, ok := groups[name]
	if !ok {
		return nil, nil
	}
	pending := map[string]bool{}
	entries, err := client.XPendingExt(ctx, &redis.XPendingExtArgs{Stream: topic, Group: name, Start: "-", End: "+", Count: acknowledgedPage * acknowledgedPages}).Result()
	if err != nil {
		return nil, fmt.Errorf("read pending entries of %s: %w", topic, err)
	}
	for _, entry := range entries {
		pending[entry.ID] = true
	}
	numbers := map[string]map[string]int64{}
	from, oldest := g.delivered.String(), g.delivered.ms-acknowledgedFor.Milliseconds()
	for range acknowledgedPages {
		page, err := client.XRevRangeN(ctx, topic, from, "-", acknowledgedPage).Result()
		if err != nil {
			return nil, fmt.Errorf("read the end of %s: %w", topic, err)
		}
		for _, entry := range page {
			if from = "(" + entry.ID; !pending[entry.ID] {
				addNumber(numbers, entry)
			}
		}
		if len(page) < acknowledgedPage || parseEntryID(page[len(page)-1].ID).ms < oldest {
			break
		}
	}
	return numbers, nil
}

// addNumber adds the number of the event in an entry, if it has one.
func addNumber(numbers map[string]map[string]int64, entry redis.XMessage) {
	m, err := unmarshal(entry.Values)
	if err != nil {
		return
	}
	e, err := event.Parse(m.Payload)
	if err != nil || e.ProducerSeq == 0 {
		return
	}
	if numbers[e.Producer] == nil {
		numbers[e.Producer] = map[string]int64{}
	}
	numbers[e.Producer][e.ProducerEpoch] = max(numbers[e.Producer][e.ProducerEpoch], e.ProducerSeq)
}
