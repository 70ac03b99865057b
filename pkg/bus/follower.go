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

// Follower shows every instance all that comes onto a stream from now on. It
// belongs to no group: nothing is acknowledged, retried or waited for, and what
// is trimmed before it was seen is missed. It is for news that can be had in
// another way too, only later.
type Follower struct {
	client  redis.UniversalClient
	topic   event.Topic
	observe func(event.Event)
	log     *slog.Logger
}

const (
	// A little of the past is shown as well, so that nothing falls between what
	// the observer read elsewhere and the first answer of the stream.
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
				f.log.WarnContext(ctx, "stream not followed", "topic", f.topic, "error", err.Error())
			} else {
				f.log.InfoContext(ctx, "stream followed again", "topic", f.topic)
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

// read returns where the next read goes on.
func (f *Follower) read(ctx context.Context, position string) (string, error) {
	if position == "" {
		now, err := f.client.Time(ctx).Result()
		if err != nil {
			return "", fmt.Errorf("read the time: %w", err)
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
			continue // The consumers put it among the dead letters.
		}
		if e, err := event.Parse(m.Payload); err == nil {
			f.observe(e)
		}
	}
	return position, nil
}
