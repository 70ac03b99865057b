package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"syscall"
	"time"

	"github.com/redis/go-redis/v9"
)

func redisFaults() []fault {
	all := []fault{
		{
			name: "Redis killed", quick: true, lasts: 2 * time.Second, effect: stuck,
			inject: endRedis(syscall.SIGKILL), heal: startRedis,
		},
		{
			name: "Redis restarted", quick: true, lasts: time.Second, effect: hits,
			inject: endRedis(syscall.SIGTERM), heal: startRedis,
		},
		{
			name: "Redis stopped for 5 s", lasts: 5 * time.Second, effect: stuck,
			inject: func(_ context.Context, p *phase) error { return p.stack.redis.signal(syscall.SIGSTOP) },
			heal:   func(_ context.Context, p *phase) error { return p.stack.redis.signal(syscall.SIGCONT) },
		},
		{
			name: "Redis FLUSHALL with entries unread", always: true, lasts: 500 * time.Millisecond, uses: with(auditing, emailService),
			inject: flush, heal: nothing, effect: hits,
		},
		{
			name: "Redis full", quick: true, lasts: 3 * time.Second, effect: stuck,
			inject: func(ctx context.Context, p *phase) error { return p.memory(ctx, "1") },
			heal:   func(ctx context.Context, p *phase) error { return p.memory(ctx, "0") },
		},
	}
	for i := range all {
		all[i].parts = []string{redisServer}
	}
	return all
}

func endRedis(sig syscall.Signal) func(context.Context, *phase) error {
	return func(ctx context.Context, p *phase) (err error) {
		if p.kept, err = p.newest(ctx); err != nil {
			return err
		}
		for _, entries := range p.kept {
			p.hits += int64(len(entries))
		}
		return p.stack.redis.end(ctx, sig)
	}
}

// startRedis starts Redis again. All that it has acknowledged must be in its streams: the
// append-only file survives the end of the process.
func startRedis(ctx context.Context, p *phase) error {
	if err := p.stack.redis.start(ctx); err != nil {
		return err
	}
	for stream, entries := range p.kept {
		gone, err := p.gone(ctx, stream, entries)
		if err != nil {
			return err
		}
		if gone > 0 {
			p.errors = append(p.errors, fmt.Sprintf("Redis has lost %d of the last %d entries of %s", gone, len(entries), stream))
		}
	}
	return nil
}

// gone returns how many of the entries are not in the stream. It retries, because the
// client remembers for a moment that the server refused connections.
func (p *phase) gone(ctx context.Context, stream string, entries []redis.XMessage) (n int, err error) {
	for _, entry := range entries {
		err := eventually(ctx, injectTimeout, "redis answers", func() (bool, error) {
			found, err := p.observer.redis.XRange(ctx, stream, entry.ID, entry.ID).Result()
			if err == nil && len(found) == 0 {
				n++
			}
			return err == nil, nil
		})
		if err != nil {
			return n, fmt.Errorf("read %s: %w", stream, err)
		}
	}
	return n, nil
}

// newest returns the newest entries of each stream, which are too young to be trimmed.
func (p *phase) newest(ctx context.Context) (map[string][]redis.XMessage, error) {
	found := map[string][]redis.XMessage{}
	young := strconv.FormatInt(time.Now().Add(-streamRetention/4).UnixMilli(), 10)
	for stream := range streams {
		entries, err := p.observer.redis.XRevRangeN(ctx, stream, "+", young, 100).Result()
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", stream, err)
		}
		found[stream] = entries
	}
	return found, nil
}

const minLost = 3 // entries that each consumer must lose

// flush empties Redis when entries are unread.
func flush(ctx context.Context, p *phase) error { return p.whileUnread(ctx, p.flushAll) }

func (p *phase) flushAll(ctx context.Context) error {
	if err := p.observer.redis.FlushAll(ctx).Err(); err != nil {
		return fmt.Errorf("flush redis: %w", err)
	}
	p.tail.lost(time.Now())
	return nil
}

// whileUnread calls f while consumers are stopped and have entries to read: if those are
// lost, no consumer has handled them.
func (p *phase) whileUnread(ctx context.Context, f func(context.Context) error) (err error) {
	stopped := p.stack.of(emailService, auditService)
	for _, one := range stopped {
		if err := one.signal(syscall.SIGSTOP); err != nil {
			return err
		}
	}
	defer func() {
		for _, one := range stopped {
			err = errors.Join(err, one.signal(syscall.SIGCONT))
		}
	}()
	for _, service := range []string{emailService, auditService} {
		before := p.hits
		err := eventually(ctx, injectTimeout, service+" has entries to read", func() (bool, error) {
			p.workload.signUpMore(ctx)
			w, err := p.observer.group(ctx, service)
			p.hits = before + w.unread
			return w.unread >= minLost, err
		})
		if err != nil {
			return err
		}
	}
	return f(ctx)
}

func (p *phase) memory(ctx context.Context, limit string) error {
	if err := p.observer.redis.ConfigSet(ctx, "maxmemory", limit).Err(); err != nil {
		return fmt.Errorf("limit the memory of redis: %w", err)
	}
	return nil
}
