package bus

import (
	"context"
	"time"

	"github.com/redis/go-redis/v9"
)

const (
	ackBatch  = 100
	ackLinger = 2 * time.Millisecond
)

// acknowledge sends acknowledgements to Redis in batches until the channel is
// closed and every one has been sent. After stop has ended, it sends them for
// closeTimeout at most.
func (s *subscription) acknowledge(ctx, stop context.Context) {
	batch := make([]string, 0, ackBatch)
	for ids := range s.acks {
		batch = append(batch[:0], ids...)
		more := true
		linger := time.NewTimer(ackLinger)
		for more && len(batch) < ackBatch {
			select {
			case next, ok := <-s.acks:
				if more = ok; ok {
					batch = append(batch, next...)
				}
				continue
			case <-linger.C:
			}
			break
		}
		linger.Stop()
		s.sendAcks(ctx, stop, batch)
	}
}

// sendAcks retries until Redis answers or closeTimeout has passed after the end of
// stop. A lost acknowledgement only costs a second delivery, which idempotent
// handlers allow.
func (s *subscription) sendAcks(ctx, stop context.Context, ids []string) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(stop, func() { time.AfterFunc(closeTimeout, cancel) })()
	defer s.untrack(ids...)
	for delay := firstBackoff; ; delay = min(2*delay, longestBackoff) {
		err := s.cfg.Client.XAck(ctx, s.topic, s.cfg.Group, ids...).Err()
		s.unacknowledged.Store(redisUnavailable(err))
		if err == nil {
			s.outage.Record(ctx, "acknowledge", nil)
			return
		}
		if lostGroup(err) {
			s.cfg.Log.WarnContext(ctx, "acknowledgement failed: consumer group is missing", "topic", s.topic, "count", len(ids))
			return
		}
		s.outage.Record(ctx, "acknowledge", err)
		if !wait(ctx, delay) {
			return
		}
	}
}

func lostGroup(err error) bool { return redis.HasErrorPrefix(err, "NOGROUP") }

// noStream reports whether an error of XINFO says that there is no stream.
func noStream(err error) bool {
	return redis.HasErrorPrefix(err, "no such key") // Redis says so without a code: ERR no such key.
}
