package reconcile

import (
	"context"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/headgate/headgate/pkg/bus"
	"github.com/headgate/headgate/pkg/event"
)

// CaughtUp returns the time up to which the group has acknowledged every entry of
// the stream, by the clock of Redis. An event that was added before that time and
// of which the group has no record is lost. CaughtUp returns the zero time while
// the group or the stream does not exist.
func CaughtUp(ctx context.Context, client redis.UniversalClient, topic event.Topic, group string) (time.Time, error) {
	// The time is read before the position: an entry that is added in between is
	// not covered.
	now, err := client.Time(ctx).Result()
	if err != nil {
		return time.Time{}, fmt.Errorf("read Redis time: %w", err)
	}
	position, err := bus.GroupPosition(ctx, client, string(topic), group)
	if err != nil {
		return time.Time{}, err
	}
	if position.AtEnd {
		return now, nil
	}
	return position.Acknowledged, nil
}
