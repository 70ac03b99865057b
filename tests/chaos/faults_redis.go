package main

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"time"
)

func redisFaults() []fault {
	return []fault{
		{
			name: "Redis killed", quick: true, lasts: 2 * time.Second, effect: stuck,
			inject: func(ctx context.Context, p *phase) error { return p.stack.redis.end(ctx, syscall.SIGKILL) },
			heal:   func(ctx context.Context, p *phase) error { return p.stack.redis.start(ctx) },
		},
		{
			name: "Redis stopped for 5 s", lasts: 5 * time.Second, effect: stuck,
			inject: func(_ context.Context, p *phase) error { return p.stack.redis.signal(syscall.SIGSTOP) },
			heal:   func(_ context.Context, p *phase) error { return p.stack.redis.signal(syscall.SIGCONT) },
		},
		{
			name: "Redis FLUSHALL with entries unread", always: true, lasts: 500 * time.Millisecond,
			inject: flush, heal: nothing, effect: hits,
		},
		{
			name: "Redis full", quick: true, lasts: 3 * time.Second, effect: stuck,
			inject: func(ctx context.Context, p *phase) error { return p.memory(ctx, "1") },
			heal:   func(ctx context.Context, p *phase) error { return p.memory(ctx, "0") },
		},
	}
}

const minLost = 3 // entries that each consumer must lose

// flush empties Redis while the consumers are stopped, so that no consumer has handled the
// lost entries.
func flush(ctx context.Context, p *phase) (err error) {
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
			w, err := p.observer.group(ctx, service)
			p.hits = before + w.unread
			return w.unread >= minLost, err
		})
		if err != nil {
			return err
		}
	}
	if err := p.observer.redis.FlushAll(ctx).Err(); err != nil {
		return fmt.Errorf("flush redis: %w", err)
	}
	p.tail.lost(time.Now())
	return nil
}

func (p *phase) memory(ctx context.Context, limit string) error {
	if err := p.observer.redis.ConfigSet(ctx, "maxmemory", limit).Err(); err != nil {
		return fmt.Errorf("limit the memory of redis: %w", err)
	}
	return nil
}
