package bus

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/headgate/headgate/pkg/event"
)

// Observer is noted what a follower reads of a stream, and how far it has got. It gets one call
// at a time, and its methods must not block.
type Observer interface {
	// Began says that reading begins: at first, and again after the stream was replaced. The
	// follower misses nothing that was added after from and that is read later.
	Began(from Mark)
	// Event gets an event and its place. The places of two calls grow unless the stream was
	// replaced.
	Event(at Mark, e event.Event)
	// Reached says that every event up to a place was passed on. Without it, nobody could tell
	// a stream in which nothing happens from one that is not read.
	Reached(at Mark)
}

// ProgressConfig is what NewProgressFollower needs.
type ProgressConfig struct {
	Client   redis.UniversalClient // with EventTimeout
	Topic    event.Topic
	Observer Observer
	Check    *Authenticity
	Lookback time.Duration // how far in the past the first read begins
	Log      *slog.Logger
}

// NewProgressFollower returns a follower that also tells its observer where each event is. It
// needs the permission for XINFO STREAM.
func NewProgressFollower(cfg ProgressConfig) *Follower {
	f := NewFollower(cfg.Client, cfg.Topic, nil, cfg.Check, cfg.Log)
	f.progress = &progress{observer: cfg.Observer, lookback: cfg.Lookback}
	return f
}

// progress is what a follower tells its observer besides the events. Nil tells nothing.
type progress struct {
	observer Observer
	lookback time.Duration
	noted    time.Time // when Reached was due last
}

const (
	// reachedEvery is how often the observer learns that nothing happened.
	reachedEvery = time.Second
	// reachedMargin is more than the time of an entry, which Redis takes when it begins to
	// work on what it has received, can be behind Redis's answer to TIME.
	reachedMargin = time.Second
)

// begin tells the observer from where on nothing is missing, if reading begins at recent.
func (p *progress) begin(ctx context.Context, f *Follower, recent entryID) error {
	if p == nil {
		return nil
	}
	complete, err := completeAfter(ctx, f.client, string(f.topic), recent)
	if err != nil {
		return err
	}
	p.observer.Began(Mark{complete})
	return nil
}

// due returns a place up to which the next read will have read everything, or the zero id
// while none needs to be known.
func (p *progress) due(ctx context.Context, f *Follower) (entryID, error) {
	if p == nil || time.Since(p.noted) < reachedEvery {
		return entryID{}, nil
	}
	now, err := timeAt(ctx, f.client, string(f.topic))
	if err != nil {
		return entryID{}, err
	}
	return entryAt(now.Add(-reachedMargin)).previous(), nil
}

func (p *progress) reached(id entryID) {
	if p == nil || id == (entryID{}) {
		return
	}
	p.noted = time.Now()
	p.observer.Reached(Mark{id})
}

// completeAfter returns the first place from recent on after which a stream has everything
// that was added to it. Redis does not say when it trimmed what, so if it has ever trimmed
// anything, the stream counts as complete from its first entry on.
func completeAfter(ctx context.Context, client redis.UniversalClient, topic string, recent entryID) (entryID, error) {
	info, err := client.XInfoStream(ctx, topic).Result()
	if noStream(err) {
		return recent, nil
	}
	if err != nil {
		return entryID{}, fmt.Errorf("inspect %s: %w", topic, err)
	}
	from := recent
	switch {
	case info.EntriesAdded == info.Length:
	case info.Length == 0:
		from = parseEntryID(info.LastGeneratedID)
	default:
		from = parseEntryID(info.FirstEntry.ID).previous()
	}
	if from.compare(recent) < 0 {
		from = recent
	}
	return from, nil
}
