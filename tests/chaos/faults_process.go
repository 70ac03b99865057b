package main

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"time"
)

// injectTimeout bounds the wait for the right moment to inject a fault.
const injectTimeout = 20 * time.Second

func processFaults() []fault {
	return []fault{
		{
			name: "email-service killed while sending", always: true, window: true, lasts: time.Second,
			inject: killWhileSending, heal: restart(emailService), effect: hits,
			parts: []string{emailService, mailServer}, uses: mailing,
		},
		{
			name: "audit-service killed", always: true, lasts: 1500 * time.Millisecond,
			inject: killAll(auditService), heal: restart(auditService), effect: unread(auditService),
			parts: []string{auditService}, uses: []string{postgresOf("audit")},
		},
		{
			name: "gateway killed", quick: true, lasts: time.Second,
			inject: killAll(gateway), heal: restart(gateway), effect: unknowns(),
			parts: []string{gateway}, uses: signingUp,
		},
		{
			name: "auth-service killed", quick: true, lasts: time.Second,
			inject: killAll(authService), heal: restart(authService), effect: unknowns(signup, login, refresh),
			parts: []string{authService}, uses: []string{postgresOf("auth")},
		},
		{
			name: "user-service killed", quick: true, lasts: 1500 * time.Millisecond,
			inject: killAll(userService), heal: restart(userService), effect: unknowns(patch),
			parts: []string{userService}, uses: []string{postgresOf("user")},
		},
		{
			name: "relay killed between XADD and mark", quick: true, lasts: 500 * time.Millisecond,
			inject: killRelay, heal: restart(authService), effect: hits,
			parts: []string{authService, redisServer}, uses: signingUp,
		},
		{
			name: "consumer killed before commit", quick: true, lasts: 500 * time.Millisecond,
			inject: killBeforeCommit, heal: restart(auditService), effect: hits,
			parts: []string{auditService, postgresOf("audit")}, uses: auditing,
		},
		{
			name: "consumer killed after commit, before XACK", quick: true, lasts: 500 * time.Millisecond,
			inject: killBeforeAck, heal: restart(auditService), effect: hits,
			parts: []string{auditService, postgresOf("audit")}, uses: auditing,
		},
	}
}

// restart starts the dead processes of a service again, as a supervisor does.
func restart(service string) func(context.Context, *phase) error {
	return func(ctx context.Context, p *phase) error {
		var dead []*process
		for _, one := range p.stack.of(service) {
			if one.gone() {
				dead = append(dead, one)
			}
		}
		return p.stack.startServices(ctx, dead)
	}
}

func (p *process) gone() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	select {
	case <-p.current.Done():
		return true
	default:
		return false
	}
}

func kill(processes []*process) {
	work := make([]func() error, len(processes))
	for i, one := range processes {
		work[i] = func() error { one.kill(); return nil }
	}
	_ = together(work...) // None of them fails.
}

func killAll(service string) func(context.Context, *phase) error {
	return func(_ context.Context, p *phase) error {
		kill(p.stack.of(service))
		return nil
	}
}

// pending waits until the service has entries in flight.
func (p *phase) pending(ctx context.Context, service string) error {
	return eventually(ctx, injectTimeout, service+" has entries in flight", func() (bool, error) {
		w, err := p.observer.group(ctx, service)
		return w.delivered > 0, err
	})
}

func (p *phase) measure(ctx context.Context, service string) error {
	w, err := p.observer.group(ctx, service)
	p.hits = w.delivered
	return err
}

// killWhileSending makes the mail server slow, so that the process is killed during an SMTP
// session.
func killWhileSending(ctx context.Context, p *phase) error {
	p.stack.smtp.behave(accepts, 400*time.Millisecond)
	defer p.stack.smtp.behave(accepts, 0)
	if err := p.pending(ctx, emailService); err != nil {
		return err
	}
	kill(p.stack.of(emailService))
	return p.measure(ctx, emailService)
}

const (
	marks   = `update\s+outbox.*published_at\s*=`
	records = `insert\s+into\s+events`
)

// killRelay kills a relay after Redis has accepted its entries, while a lock keeps it from
// marking them as published. The order matters: before the table is locked, the relay must
// be in its transaction and have numbered the rows.
func killRelay(ctx context.Context, p *phase) error {
	before, err := p.entries(ctx)
	if err != nil {
		return err
	}
	if err := p.stack.redis.signal(syscall.SIGSTOP); err != nil {
		return err
	}
	lock, err := p.lockRelayed(ctx)
	err = errors.Join(err, p.stack.redis.signal(syscall.SIGCONT))
	if lock != nil {
		defer func() { _ = lock.release() }() // The lock ends with its connection, even after an error.
	}
	if err != nil {
		return err
	}
	err = eventually(ctx, injectTimeout, "a relay waits to mark its events as published", func() (bool, error) {
		n, err := p.observer.blocked(ctx, "auth", marks)
		return n > 0, err
	})
	after, err2 := p.entries(ctx)
	kill(p.stack.of(authService))
	if err := errors.Join(err, err2); err != nil {
		return err
	}
	if after <= before {
		return fmt.Errorf("the streams did not grow: %d entries before, %d after", before, after)
	}
	if err := p.observer.abort(ctx, "auth", marks); err != nil {
		return err
	}
	p.hits, err = p.observer.backlog(ctx, "auth")
	return err
}

// lockRelayed locks the outbox while a relay waits for Redis, which is stopped.
func (p *phase) lockRelayed(ctx context.Context) (*tableLock, error) {
	numbered := ``
	n, err := p.observer.count(ctx, "auth", `SELECT count(*) FROM information_schema.columns WHERE table_name = 'outbox' AND column_name = 'seq'`)
	if err != nil {
		return nil, err
	}
	if n > 0 {
		numbered = ` AND EXISTS (SELECT FROM outbox WHERE published_at IS NULL AND seq IS NOT NULL)`
	}
	err = eventually(ctx, 3*time.Second, "a relay waits for Redis", func() (bool, error) {
		n, err := p.observer.count(ctx, "auth", `
			SELECT count(*) FROM pg_stat_activity
			WHERE state = 'idle in transaction' AND query ~* 'outbox' AND query !~* 'insert|notify'
				AND EXISTS (SELECT FROM outbox WHERE published_at IS NULL)`+numbered)
		return n > 0, err
	})
	if err != nil {
		return nil, err
	}
	return p.observer.lock(ctx, "auth", "outbox")
}

// entries returns how many entries the streams have.
func (p *phase) entries(ctx context.Context) (int64, error) {
	var sum int64
	for stream := range streams {
		n, err := p.observer.redis.XLen(ctx, stream).Result()
		if err != nil {
			return 0, fmt.Errorf("count entries of %s: %w", stream, err)
		}
		sum += n
	}
	return sum, nil
}

// blockRecords locks the audit log against writers, and returns when audit-service waits
// for the lock.
func (p *phase) blockRecords(ctx context.Context) (*tableLock, error) {
	lock, err := p.observer.lock(ctx, "audit", "events")
	if err != nil {
		return nil, err
	}
	err = eventually(ctx, injectTimeout, "audit-service waits to write", func() (bool, error) {
		n, err := p.observer.blocked(ctx, "audit", records)
		return n > 0, err
	})
	if err != nil {
		return nil, errors.Join(err, lock.release())
	}
	return lock, nil
}

func killBeforeCommit(ctx context.Context, p *phase) error {
	lock, err := p.blockRecords(ctx)
	if err != nil {
		return err
	}
	kill(p.stack.of(auditService))
	err = p.observer.abort(ctx, "audit", records)
	return errors.Join(err, lock.release(), p.measure(ctx, auditService))
}

// killBeforeAck cuts audit-service off from Redis before its records are committed.
// Otherwise an acknowledgement that was sent could arrive after the death of the process.
func killBeforeAck(ctx context.Context, p *phase) error {
	lock, err := p.blockRecords(ctx)
	if err != nil {
		return err
	}
	const all = `SELECT count(*) FROM events`
	before, err := p.observer.count(ctx, "audit", all)
	link := p.stack.links[auditService]
	err = errors.Join(err, link.cut(), lock.release())
	if err == nil {
		err = eventually(ctx, injectTimeout, "the records are committed", func() (bool, error) {
			n, err := p.observer.count(ctx, "audit", all)
			return n > before, err
		})
	}
	kill(p.stack.of(auditService))
	return errors.Join(err, link.heal(), p.measure(ctx, auditService))
}
