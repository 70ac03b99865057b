package bus

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/pkg/service"
)

// Follower passes the new events of a stream to an observer in every instance. It
// belongs to no consumer group: it acknowledges and retries nothing, and it misses
// entries that are trimmed before it reads them. If Redis lost the stream or came back
// with an older copy, it notices within a second and reads the recent entries again.
// Use it only for facts that the service also learns in another, slower way.
type Follower struct {
	client   redis.UniversalClient
	topic    event.Topic
	observe  func(event.Event)
	check    *Authenticity
	log      *slog.Logger
	outage   *service.Outage
	progress *progress // nil unless somebody observes it
}

const (
	// The first read starts in the past, so that no event is missed between the
	// observer's own first read elsewhere and this one.
	followerLookback = time.Minute
	// While a read waits, Redis does not say that the stream was replaced. So the wait
	// bounds how long the events of another stream can go unnoticed.
	followerBlock = 500 * time.Millisecond
	followerCount = 500
	followerPause = 250 * time.Millisecond
)

// NewFollower returns a follower of topic. It calls observe for one event at a
// time, and ignores those that check refuses; observe must not block and must accept an
// event twice. client needs EventTimeout, because a read waits for new entries.
func NewFollower(client redis.UniversalClient, topic event.Topic, observe func(event.Event), check *Authenticity, log *slog.Logger) *Follower {
	return &Follower{client: client, topic: topic, observe: observe, check: check, log: log, outage: service.NewOutage(service.OutageConfig{
		Log: log.With("topic", topic), Failing: "stream follower read failed; retrying", Over: "stream follower recovered",
		Reported: redisUnavailable,
	})}
}

// Run follows the stream until ctx ends.
func (f *Follower) Run(ctx context.Context) error {
	position, failing := "", false
	for ctx.Err() == nil {
		var err error
		if failing { // Redis may have lost the stream meanwhile.
			position, err = f.confirm(ctx, position)
		}
		if err == nil {
			position, err = f.read(ctx, position)
		}
		if failing = err != nil; ctx.Err() == nil {
			f.outage.Record(ctx, "", err)
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

// read returns the position of the next read: the last entry that was read, or the
// point from which nothing was found.
func (f *Follower) read(ctx context.Context, position string) (string, error) {
	if position == "" {
		recent, err := f.recent(ctx)
		if err != nil {
			return "", err
		}
		position = recent.String()
		if err := f.progress.begin(ctx, f, recent); err != nil {
			return "", err
		}
	}
	reached, err := f.progress.due(ctx, f)
	if err != nil {
		return position, err
	}
	entries, err := f.fetch(ctx, &redis.XReadArgs{Streams: []string{string(f.topic), position}, Count: followerCount, Block: followerBlock})
	if err != nil {
		return position, err
	}
	if len(entries) == 0 {
		confirmed, err := f.confirm(ctx, position)
		if err == nil && confirmed == position {
			f.progress.reached(reached)
		}
		return confirmed, err
	}
	for _, entry := range entries {
		position = entry.ID
		e, ok := f.check.eventIn(ctx, string(f.topic), entry)
		switch {
		case !ok:
		case f.progress != nil:
			f.progress.observer.Event(Mark{parseEntryID(entry.ID)}, e)
		default:
			f.observe(e)
		}
	}
	if len(entries) < followerCount {
		f.progress.reached(reached)
	}
	return position, nil
}

// confirm returns position if the stream still has its entry. Otherwise the stream may
// be another one, with smaller ids, for example because the clock of the new Redis is
// behind. Then confirm returns a position that is also older than all recent entries.
func (f *Follower) confirm(ctx context.Context, position string) (string, error) {
	id := parseEntryID(position)
	entries, err := f.fetch(ctx, &redis.XReadArgs{Streams: []string{string(f.topic), id.previous().String()}, Count: 1, Block: -1})
	if err != nil || len(entries) > 0 && entries[0].ID == position {
		return position, err
	}
	recent, err := f.recent(ctx)
	if err != nil || id.compare(recent) <= 0 {
		return position, err
	}
	f.log.WarnContext(ctx, "stream was replaced; reading recent entries again", "topic", f.topic, "position", position, "from", recent.String())
	if err := f.progress.begin(ctx, f, recent); err != nil {
		return position, err
	}
	return recent.String(), nil
}

// recent returns a position before the entries of the last followerLookback, or of what the
// observer of the progress wants, by the clock that makes their ids.
func (f *Follower) recent(ctx context.Context) (entryID, error) {
	now, err := timeAt(ctx, f.client, string(f.topic))
	if err != nil {
		return entryID{}, err
	}
	if f.progress != nil {
		return entryAt(now.Add(-f.progress.lookback)), nil
	}
	return entryAt(now.Add(-followerLookback)), nil
}

func (f *Follower) fetch(ctx context.Context, args *redis.XReadArgs) ([]redis.XMessage, error) {
	streams, err := f.client.XRead(ctx, args).Result()
	if errors.Is(err, redis.Nil) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", f.topic, err)
	}
	return streams[0].Messages, nil
}
