package main

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"time"
)

// enough bounds the wait for the moment at which a fault is to strike.
const enough = 8 * time.Second

func processFaults() []fault {
	all := []fault{
		{name: "email-service killed while sending", always: true, window: true, lasts: time.Second, inject: killWhileSending, bit: struck},
		{name: "audit-service killed", always: true, lasts: 1500 * time.Millisecond, inject: killAll(auditService), bit: unread(auditService)},
		{name: "gateway killed", quick: true, lasts: time.Second, inject: killAll(gateway), bit: unknowns},
		{name: "auth-service killed", quick: true, lasts: time.Second, inject: killAll(authService), bit: unknowns},
		{name: "user-service killed", quick: true, lasts: 1500 * time.Millisecond, inject: killAll(userService), bit: unknowns},
		{name: "relay killed between XADD and mark", quick: true, lasts: 500 * time.Millisecond, inject: killRelay, bit: struck},
		{name: "consumer killed before commit", quick: true, lasts: 500 * time.Millisecond, inject: killBeforeCommit, bit: struck},
		{name: "consumer killed after commit, before XACK", quick: true, lasts: 500 * time.Millisecond, inject: killBeforeAck, bit: struck},
	}
	for i := range all {
		all[i].heal = restart
	}
	return all
}

// restart does what a supervisor would.
func restart(ctx context.Context, p *phase) error {
	var dead []*process
	for _, one := range p.stack.processes {
		if one.gone() {
			dead = append(dead, one)
		}
	}
	return p.stack.startServices(ctx, dead)
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

// pending waits until the service has taken entries that it has not
// acknowledged, at the moment when it returns.
func (p *phase) pending(ctx context.Context, service string) error {
	return eventually(ctx, enough, service+" has entries in hand", func() (bool, error) {
		w, err := p.observer.group(ctx, service)
		return w.delivered > 0, err
	})
}

func (p *phase) measure(ctx context.Context, service string) error {
	w, err := p.observer.group(ctx, service)
	p.struck = w.delivered
	return err
}

// killWhileSending has the mail server answer slowly, so that the kill falls
// into a dialogue.
func killWhileSending(ctx context.Context, p *phase) error {
	p.stack.smtp.behave(obliging, 400*time.Millisecond)
	defer p.stack.smtp.behave(obliging, 0)
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

// killRelay strikes while a relay, whose entries Redis has taken, is kept from
// noting that. The order matters: the relay must be inside its transaction,
// past any numbering of the rows, before the table is locked.
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
		defer func() { _ = lock.release() }() // It ends with its connection, whatever that says.
	}
	if err != nil {
		return err
	}
	err = eventually(ctx, enough, "a relay waits to mark what it has published", func() (bool, error) {
		n, err := p.observer.blocked(ctx, "auth", marks)
		return n > 0, err
	})
	after, err2 := p.entries(ctx)
	kill(p.stack.of(authService))
	if err := errors.Join(err, err2); err != nil {
		return err
	}
	if after <= before {
		return fmt.Errorf("the streams have not grown: %d entries, then %d", before, after)
	}
	if err := p.observer.abort(ctx, "auth", marks); err != nil {
		return err
	}
	p.struck, err = p.observer.backlog(ctx, "auth")
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

// holdRecords keeps audit-service from writing its log, and returns when it tries to.
func (p *phase) holdRecords(ctx context.Context) (*tableLock, error) {
	lock, err := p.observer.lock(ctx, "audit", "events")
	if err != nil {
		return nil, err
	}
	err = eventually(ctx, enough, "audit-service waits to write", func() (bool, error) {
		n, err := p.observer.blocked(ctx, "audit", records)
		return n > 0, err
	})
	if err != nil {
		return nil, errors.Join(err, lock.release())
	}
	return lock, nil
}

func killBeforeCommit(ctx context.Context, p *phase) error {
	lock, err := p.holdRecords(ctx)
	if err != nil {
		return err
	}
	kill(p.stack.of(auditService))
	err = p.observer.abort(ctx, "audit", records)
	return errors.Join(err, lock.release(), p.measure(ctx, auditService))
}

// killBeforeAck cuts audit-service off from Redis before its records commit: an
// acknowledgement that is only sent would arrive after the sender's death.
func killBeforeAck(ctx context.Context, p *phase) error {
	lock, err := p.holdRecords(ctx)
	if err != nil {
		return err
	}
	const all = `SELECT count(*) FROM events`
	before, err := p.observer.count(ctx, "audit", all)
	link := p.stack.links[auditService]
	err = errors.Join(err, link.cut(), lock.release())
	if err == nil {
		err = eventually(ctx, enough, "the records are there", func() (bool, error) {
			n, err := p.observer.count(ctx, "audit", all)
			return n > before, err
		})
	}
	kill(p.stack.of(auditService))
	return errors.Join(err, link.heal(), p.measure(ctx, auditService))
}
