package outbox

import (
	"context"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"
)

// outage logs that events cannot be published: a line when that begins, a line a minute
// as long as it lasts, and a line when all topics are published again. It is safe for
// concurrent use.
type outage struct {
	log *slog.Logger

	mu      sync.Mutex
	failing map[string]bool // topics; "" for the look for topics
	since   time.Time
	logged  time.Time
}

const logEvery = time.Minute

// failed records that topic cannot be published. It is called for each attempt.
func (o *outage) failed(ctx context.Context, topic string, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	now := time.Now()
	begins := len(o.failing) == 0
	if begins {
		o.failing, o.since = make(map[string]bool), now
	}
	o.failing[topic] = true
	if !begins && now.Sub(o.logged) < logEvery {
		return
	}
	o.logged = now
	topics := slices.DeleteFunc(slices.Sorted(maps.Keys(o.failing)), func(topic string) bool { return topic == "" })
	attributes := []any{"topics", topics, "error", err.Error(), "failing_ms", now.Sub(o.since).Milliseconds()}
	if begins {
		o.log.WarnContext(ctx, "publish failed; retrying", attributes...)
	} else {
		o.log.WarnContext(ctx, "publish still failing; retrying", attributes...)
	}
}

// succeeded records that nothing keeps topic from being published.
func (o *outage) succeeded(ctx context.Context, topic string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if !o.failing[topic] {
		return
	}
	delete(o.failing, topic)
	if len(o.failing) == 0 {
		o.log.InfoContext(ctx, "publishing resumed", "failed_ms", time.Since(o.since).Milliseconds())
	}
}
