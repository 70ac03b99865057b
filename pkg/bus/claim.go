package bus

import (
	"context"
	"errors"
	"math/rand/v2"

	"github.com/redis/go-redis/v9"
)

// renew resets the idle time of the entries in flight, so that no other consumer
// claims them.
func (s *subscription) renew(ctx context.Context) {
	ids := s.inFlightIDs()
	if len(ids) == 0 {
		s.outage.Record(ctx, "renew", nil)
		return
	}
	err := s.cfg.Client.XClaimJustID(ctx, &redis.XClaimArgs{
		Stream: s.topic, Group: s.cfg.Group, Consumer: s.cfg.Consumer, Messages: ids,
	}).Err()
	if ctx.Err() == nil {
		s.outage.Record(ctx, "renew", err)
	}
}

// claim takes over the entries of consumers that died, as fast as they are handled.
func (s *subscription) claim(ctx context.Context, dispatch dispatchFunc) {
	for cursor := "0-0"; ; {
		free := s.claimed.reserve(ctx, readBatch)
		if free == 0 {
			return
		}
		entries, next, gone, err := s.cfg.Client.XAutoClaimWithDeleted(ctx, &redis.XAutoClaimArgs{
			Stream: s.topic, Group: s.cfg.Group, Consumer: s.cfg.Consumer,
			MinIdle: s.cfg.MaxIdle, Start: cursor, Count: int64(free),
		}).Result()
		s.claimed.release(free - len(entries))
		if err != nil {
			if ctx.Err() == nil && !lostGroup(err) && !errors.Is(err, redis.Nil) {
				s.outage.Record(ctx, "claim", err)
			}
			return
		}
		s.outage.Record(ctx, "claim", nil)
		s.reportLost(ctx, gone)
		if len(entries) > 0 {
			s.metrics.claimed.With(s.labels).Add(float64(len(entries)))
			s.cfg.Log.InfoContext(ctx, "abandoned entries claimed", "topic", s.topic, "count", len(entries))
			counts := s.deliveryCounts(ctx, entries)
			// One of the entries that a crash left behind may be its cause. In a random
			// order each of the others is handled before that one sooner or later.
			//nolint:gosec // Chance, not secrecy.
			rand.Shuffle(len(entries), func(i, j int) { entries[i], entries[j] = entries[j], entries[i] })
			dispatch(s.claimed, entries, counts)
		}
		if next == "0-0" || next == "" {
			return
		}
		cursor = next
	}
}

// releaseInFlight makes the entries in flight look long abandoned, so that another
// consumer claims them at once. It resets their delivery counts: no consumer has
// died of them.
func (s *subscription) releaseInFlight(ctx context.Context) {
	ids := s.inFlightIDs()
	if len(ids) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, closeTimeout)
	defer cancel()
	args := []any{"XCLAIM", s.topic, s.cfg.Group, s.cfg.Consumer, 0}
	for _, id := range ids {
		args = append(args, id)
	}
	args = append(args, "IDLE", (10 * s.cfg.MaxIdle).Milliseconds(), "RETRYCOUNT", 0, "JUSTID")
	if err := s.cfg.Client.Do(ctx, args...).Err(); err != nil {
		s.cfg.Log.Log(ctx, retryLevel(err), "entries in flight could not be released", "topic", s.topic, "count", len(ids), "error", err.Error())
	}
}
