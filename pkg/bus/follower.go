package bus

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/headgate/headgate/pkg/event"
)

// Follower passes the new events of a stream to an observer in every instance. It
// belongs to no consumer group: it acknowledges and retries nothing, and it misses
// entries that are trimmed before it reads them. Use it only for facts that the
// service also learns in another, slower way.
type Follower struct {
	client  redis.UniversalClient
	topic   event.Topic
	observe func(event.Event)
	log     *slog.Logger
}

const (
	// The first read starts in the past, so that no event is missed between the
	// observer's own first read elsewhere and this one.
	followerLookback = time.Minute
	followerBlock    = 2 * time.Second
	followerCount    = 500
	followerPause    = 250 * time.Millisecond
)

// NewFollower returns a follower of topic. It calls observe for one event at a
// time; observe must not block and must accept an event twice. client needs
// EventTimeout, because a read waits for new entries.
func NewFollower(client redis.UniversalClient, topic event.Topic, observe func(event.Event), log *slog.Logger) *Follower {
	return &Follower{client: client, topic: topic, observe: observe, log: log}
}

// Run follows the stream until ctx ends.
func (f *Follower) Run(ctx context.Context) error {
	position, failing := "", false
	for ctx.Err() == nil {
		next, err := f.read(ctx, position)
		position = next
		if failed := err != nil; failed != failing && ctx.Err() == nil {
			failing = failed
			if failed {
				f.log.WarnContext(ctx, "stream follower read failed; retrying", "topic", f.topic, "error", err.Error())
			} else {
				f.log.InfoContext(ctx, "stream follower recovered", "topic", f.topic)
			}
		}
		if err != nil {
			select {
			case <-ctx.Done():
			case <-time.After(followerPause):
			}
		}
	}
	return nil
}

// read returns the position of the next read. An empty position starts
// followerLookback ago.
func (f *Follower) read(ctx context.Context, position string) (string, error) {
	if position == "" {
		now, err := f.client.Time(ctx).Result()
		if err != nil {
			return "", fmt.Errorf("read Redis time: %w", err)
		}
		position = entryAt(now.Add(-followerLookback)).String()
	}
	streams, err := f.client.XRead(ctx, &redis.XReadArgs{
		Streams: []string{string(f.topic), position}, Count: followerCount, Block: followerBlock,
	}).Result()
	if errors.Is(err, redis.Nil) {
		return position, nil
	}
	if err != nil {
		return position, fmt.Errorf("read %s: %w", f.topic, err)
	}
	for _, entry := range streams[0].Messages {
		position = entry.ID
		m, err := unmarshal(entry.Values)
		if err != nil {
			continue // The consumers make a dead letter of it.
		}
		if e, err := event.Parse(m.Payload); err == nil {
			f.observe(e)
		}
	}
	return position, nil
}
