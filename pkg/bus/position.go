package bus

import (
	"context"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"
)

// Position is the progress of a consumer group in a stream.
type Position struct {
	// Acknowledged is the time up to which the group has acknowledged every entry.
	Acknowledged time.Time
	// AtEnd says that the group has acknowledged every entry of the stream.
	AtEnd bool
}

// GroupPosition returns the position of a consumer group, and the zero Position
// while the group or the stream does not exist.
func GroupPosition(ctx context.Context, client redis.UniversalClient, topic, group string) (Position, error) {
	groups, err := groupsOf(ctx, client, topic)
	if err != nil {
		return Position{}, err
	}
	g, ok := groups[group]
	if !ok {
		return Position{}, nil
	}
	position := Position{Acknowledged: time.UnixMilli(g.acknowledged.ms)}
	if g.pending > 0 {
		return position, nil
	}
	// Redis does not know the lag once entries were deleted, so compare with the
	// last entry.
	info, err := client.XInfoStream(ctx, topic).Result()
	if err != nil {
		return Position{}, fmt.Errorf("inspect %s: %w", topic, err)
	}
	position.AtEnd = info.Length == 0 || parseEntryID(info.LastEntry.ID).compare(g.acknowledged) <= 0
	return position, nil
}
