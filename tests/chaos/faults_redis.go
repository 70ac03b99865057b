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
			name: "Redis killed", quick: true, lasts: 2 * time.Second, bit: stuck,
			inject: func(ctx context.Context, p *phase) error { return p.stack.redis.end(ctx, syscall.SIGKILL) },
			heal:   func(ctx context.Context, p *phase) error { return p.stack.redis.start(ctx) },
		},
		{
			name: "Redis stopped for 5 s", lasts: 5 * time.Second, bit: stuck,
			inject: func(_ context.Context, p *phase) error { return p.stack.redis.signal(syscall.SIGSTOP) },
			heal:   func(_ context.Context, p *phase) error { return p.stack.redis.signal(syscall.SIGCONT) },
		},
		{
			name: "Redis FLUSHALL with entries unread", always: true, lasts: 500 * time.Millisecond,
			inject: flush, heal: nothing, bit: struck,
		},
		{
			name: "Redis full", quick: true, lasts: 3 * time.Second, bit: stuck,
			inject: func(ctx context.Context, p *phase) error { return p.memory(ctx, "1") },
			heal:   func(ctx context.Context, p *phase) error { return p.memory(ctx, "0") },
		},
	}
}

const several = 3 // entries for each consumer to lose

// flush empties Redis while the consumers sleep, so that what is lost there
// was handled by nobody.
func flush(ctx context.Context, p *phase) (err error) {
	sleepers := p.stack.of(emailService, auditService)
	for _, one := range sleepers {
		if err := one.signal(syscall.SIGSTOP); err != nil {
			return err
		}
	}
	defer func() {
		for _, one := range sleepers {
			err = errors.Join(err, one.signal(syscall.SIGCONT))
		}
	}()
	for _, service := range []string{emailService, auditService} {
		before := p.struck
		err := eventually(ctx, enough, service+" has entries to read", func() (bool, error) {
			w, err := p.observer.group(ctx, service)
			p.struck = before + w.unread
			return w.unread >= several, err
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
