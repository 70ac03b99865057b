package bus

import (
	"context"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"
)

// CaughtUp returns the time up to which the group has acknowledged every entry of
// the stream. An event that was added before that time and of which the group has
// no record is lost. CaughtUp returns the zero time while the group or the stream
// does not exist.
func CaughtUp(ctx context.Context, client redis.UniversalClient, topic, group string) (time.Time, error) {
	now, err := client.Time(ctx).Result()
	if err != nil {
		return time.Time{}, fmt.Errorf("read Redis time: %w", err)
	}
	groups, err := groupsOf(ctx, client, topic)
	if err != nil {
		return time.Time{}, err
	}
	g, ok := groups[group]
	if !ok {
		return time.Time{}, nil
	}
	if g.pending == 0 {
		// Redis does not know the lag once entries were deleted, so compare with the
		// last entry.
		info, err := client.XInfoStream(ctx, topic).Result()
		if err != nil {
			return time.Time{}, fmt.Errorf("inspect %s: %w", topic, err)
		}
		if info.Length == 0 || parseEntryID(info.LastEntry.ID).compare(g.acknowledged) <= 0 {
			return now, nil
		}
	}
	return time.UnixMilli(g.acknowledged.ms), nil
}
