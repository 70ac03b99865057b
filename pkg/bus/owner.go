package bus

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
)

const (
	ownerLease = 3 * time.Second // also how long a process waits after one with its name has crashed
	ownerRenew = time.Second
)

// owner is the lease of a consumer's name, in Redis. Two processes that read with one
// name would take each other's entries in flight for their own. Only the knowledge that
// another process has the lease stops a consumer: one that cannot reach Redis, or may
// not use the key, keeps its name.
type owner struct {
	client     redis.UniversalClient
	key, token string

	mu    sync.Mutex
	since time.Time // another process has had the lease since then; zero if it has not
}

func newOwner(client redis.UniversalClient, topic, group, consumer string) *owner {
	return &owner{client: client, key: "consumer:owner:" + topic + ":" + group + ":" + consumer, token: rand.Text()}
}

// takeOwner takes or renews the lease, and returns 0 if another process has it.
var takeOwner = redis.NewScript(`
	local holder = redis.call('GET', KEYS[1])
	if holder and holder ~= ARGV[1] then return 0 end
	redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
	return 1`)

var releaseOwner = redis.NewScript(`
	if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end
	return 0`)

// take takes or renews the lease. It returns false if another process has it. If that is
// unknown, it returns an error with the last known answer, true at first: an error does not
// show that the other process has gone.
func (o *owner) take(ctx context.Context) (bool, error) {
	// Longer than the interval of renewal, a command only delays the next one.
	limited, cancel := context.WithTimeout(ctx, ownerRenew)
	defer cancel()
	taken, err := takeOwner.Run(limited, o.client, []string{o.key}, o.token, ownerLease.Milliseconds()).Bool()
	if err != nil && !errors.Is(err, redis.Nil) {
		o.mu.Lock()
		defer o.mu.Unlock()
		return o.since.IsZero(), fmt.Errorf("take consumer name: %w", err)
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	switch {
	case taken:
		o.since = time.Time{}
	case o.since.IsZero():
		o.since = time.Now()
	}
	return taken, nil
}

// release gives the name up, if this process has it. If that fails, the lease expires
// soon.
func (o *owner) release(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, ownerRenew)
	defer cancel()
	if err := releaseOwner.Run(ctx, o.client, []string{o.key}, o.token).Err(); err != nil {
		return fmt.Errorf("release consumer name: %w", err)
	}
	return nil
}

// usurped returns for how long another process has had the name, 0 if it has not, or
// only for as long as a process that has crashed may seem to have it.
func (o *owner) usurped() time.Duration {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.since.IsZero() || time.Since(o.since) < ownerLease+ownerRenew {
		return 0
	}
	return time.Since(o.since)
}

// whileOwner calls read while this process has the consumer's name, until stop ends.
// The context of read ends when another process has the name.
func (s *subscription) whileOwner(stop context.Context, read func(ctx context.Context)) {
	var logged time.Time
	for stop.Err() == nil {
		taken, err := s.owner.take(stop)
		if _, ok := errors.AsType[redis.Error](err); ok && taken {
			s.cfg.Log.WarnContext(stop, "consumer name could not be checked", "topic", s.topic, "consumer", s.cfg.Consumer, "error", err.Error())
		}
		if !taken {
			if s.owner.usurped() > 0 && time.Since(logged) > time.Minute {
				logged = time.Now()
				s.cfg.Log.ErrorContext(stop, "consumer name is in use by another process; this one reads nothing. Set a different INSTANCE_ID in each instance",
					"topic", s.topic, "group", s.cfg.Group, "consumer", s.cfg.Consumer)
			}
			wait(stop, ownerRenew/2)
			continue
		}
		reading, cancel := context.WithCancel(stop)
		var renewal sync.WaitGroup
		renewal.Go(func() {
			every(reading, ownerRenew, func() {
				if taken, _ := s.owner.take(reading); !taken {
					cancel()
				}
			})
		})
		read(reading)
		cancel()
		renewal.Wait()
	}
}
