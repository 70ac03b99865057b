package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"syscall"
	"time"
)

// isolationFaults are bad things that must not stop the rest.
func isolationFaults() []fault {
	return []fault{
		{
			name: "email-events not writable (NOPERM)", quick: true, lasts: 4 * time.Second, parts: []string{redisServer}, uses: auditing,
			inject: revoke, others: recorded, heal: grant, effect: stuck,
		},
		{
			name: "email-events not a stream (WRONGTYPE)", lasts: 4 * time.Second, parts: []string{redisServer}, uses: auditing,
			inject: hideStream, others: recorded, heal: showStream, effect: stuck,
		},
		{
			name: "two of three auth-services frozen", quick: true, lasts: 4 * time.Second, parts: []string{redisServer, authService}, uses: auditing,
			inject: freeze, others: recorded, heal: thaw, effect: hits,
		},
		{
			name: "rows of audit locked", lasts: 5 * time.Second, inject: lockRows(auditService), others: recorded,
			heal: func(_ context.Context, p *phase) error { return p.undo() }, effect: hits,
		},
		{
			name: "rows of email locked", lasts: 5 * time.Second, inject: lockRows(emailService), others: mailedTo,
			heal: func(_ context.Context, p *phase) error { return p.undo() }, effect: hits,
		},
		{
			name: "entries with ids of 9,000 characters", lasts: 4 * time.Second, inject: addOversized, others: bothFlow,
			heal: nothing, effect: hits,
		},
		{
			name: "500 dead letters replayed", lasts: 5 * time.Second, inject: replayMany, others: mailedTo,
			heal: func(_ context.Context, p *phase) error { p.stack.smtp.behave(accepts, 0); return nil }, effect: hits,
		},
		{name: "consumer group abandoned", inject: abandonGroup, heal: nothing, effect: hits},
	}
}

// flowTimeout is how long an event may take while something else is broken. It allows for
// the time-out of a lock, one retry and two busy cores.
const flowTimeout = 6 * time.Second

// recorded fails unless every sign-up since the injection reaches the audit log now.
func recorded(ctx context.Context, p *phase) error {
	return p.flow(ctx, "in the audit log", func(signups []operation) (int, error) {
		ids := make([]string, len(signups))
		for i, o := range signups {
			ids[i] = o.ID
		}
		found, err := p.observer.recorded(ctx, ids)
		return len(found), err
	})
}

// mailedTo fails unless every sign-up since the injection gets its mail now.
func mailedTo(ctx context.Context, p *phase) error {
	return p.flow(ctx, "mailed", func(signups []operation) (n int, _ error) {
		for _, o := range signups {
			if p.stack.smtp.has(o.Email) {
				n++
			}
		}
		return n, nil
	})
}

func bothFlow(ctx context.Context, p *phase) error {
	return errors.Join(recorded(ctx, p), mailedTo(ctx, p))
}

// flow waits until done returns the number of all sign-ups that were acknowledged between
// the injection and now.
func (p *phase) flow(ctx context.Context, what string, done func([]operation) (int, error)) error {
	p.workload.signUpMore(ctx)
	var signups []operation
	for _, o := range p.history.all() {
		if o.Kind == signup && o.Outcome == ok && !o.Injected && o.Start.After(p.broken) {
			signups = append(signups, o)
		}
	}
	if len(signups) == 0 {
		return errors.New("nobody can sign up during the fault")
	}
	n := 0
	err := eventually(ctx, flowTimeout, "others work", func() (_ bool, err error) {
		n, err = done(signups)
		return n >= len(signups), err
	})
	if err != nil {
		return fmt.Errorf("%d of %d sign-ups are %s while the fault lasts: %w", n, len(signups), what, err)
	}
	return nil
}

// freeze freezes two of three relays while they wait for Redis, so that they hold whatever
// a relay holds during a round trip. The first instance serves the gateway.
func freeze(ctx context.Context, p *phase) error {
	if err := p.stack.redis.signal(syscall.SIGSTOP); err != nil {
		return err
	}
	err := eventually(ctx, injectTimeout, "events wait for Redis", func() (_ bool, err error) {
		p.hits, err = p.observer.backlog(ctx, "auth")
		return p.hits > 0, err
	})
	for _, one := range p.stack.of(authService)[1:] {
		err = errors.Join(err, one.signal(syscall.SIGSTOP))
	}
	return errors.Join(err, p.stack.redis.signal(syscall.SIGCONT))
}

func thaw(_ context.Context, p *phase) (err error) {
	for _, one := range p.stack.of(authService)[1:] {
		err = errors.Join(err, one.signal(syscall.SIGCONT))
	}
	return err
}

const abandonedGroup = "abandoned"

// abandonGroup creates a group that nobody reads. At the end of the run, the entries that
// the streams have now must be gone.
func abandonGroup(ctx context.Context, p *phase) error {
	oldest := strconv.FormatInt(time.Now().UnixMilli(), 10)
	for stream := range streams {
		if err := p.observer.redis.XGroupCreate(ctx, stream, abandonedGroup, "0").Err(); err != nil {
			return fmt.Errorf("create group of %s: %w", stream, err)
		}
		p.hits++
	}
	p.late = append(p.late, func(ctx context.Context) error {
		// Redis trims whole nodes of 100 entries.
		const slack = 100
		for stream := range streams {
			var n int
			err := eventually(ctx, streamRetention+40*time.Second, "old entries of "+stream+" are trimmed", func() (bool, error) {
				old, err := p.observer.redis.XRangeN(ctx, stream, "-", oldest, slack+1).Result()
				n = len(old)
				return n <= slack, err
			})
			if err != nil {
				return fmt.Errorf("a group that nobody reads keeps %d old entries or more: %w", n, err)
			}
		}
		return nil
	})
	return nil
}
