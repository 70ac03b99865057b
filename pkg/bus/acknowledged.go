package bus

import (
	"context"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/headgate/headgate/pkg/event"
)

const (
	// acknowledgedFor is how far Acknowledged looks back from the last entry that the
	// group has read, by the clock of Redis.
	acknowledgedFor   = time.Minute
	acknowledgedPage  = 1000
	acknowledgedPages = 50
)

// Acknowledged shows observe the events of a stream that a consumer group has acknowledged
// in the last minute before it stopped, the latest first: those among the last 50,000
// entries at most that the stream still has, without those that it refuses. There are none
// if there is no such group.
func (a *Authenticity) Acknowledged(ctx context.Context, client redis.UniversalClient, topic, name string, observe func(event.Event)) error {
	groups, err := groupsOf(ctx, client, topic)
	if err != nil {
		return err
	}
	g, ok := groups[name]
	if !ok {
		return nil
	}
	pending := map[string]bool{}
	entries, err := client.XPendingExt(ctx, &redis.XPendingExtArgs{Stream: topic, Group: name, Start: "-", End: "+", Count: acknowledgedPage * acknowledgedPages}).Result()
	if err != nil {
		return fmt.Errorf("read pending entries of %s: %w", topic, err)
	}
	for _, entry := range entries {
		pending[entry.ID] = true
	}
	from, oldest := g.delivered.String(), g.delivered.ms-acknowledgedFor.Milliseconds()
	for range acknowledgedPages {
		page, err := client.XRevRangeN(ctx, topic, from, "-", acknowledgedPage).Result()
		if err != nil {
			return fmt.Errorf("read the end of %s: %w", topic, err)
		}
		for _, entry := range page {
			from = "(" + entry.ID
			if e, ok := a.eventIn(ctx, topic, entry); ok && !pending[entry.ID] {
				observe(e)
			}
		}
		if len(page) < acknowledgedPage || parseEntryID(page[len(page)-1].ID).ms < oldest {
			break
		}
	}
	return nil
}
