package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"time"
)

// clockJump is by how much clocks are wrong.
const clockJump = time.Hour

func clockFaults() []fault {
	services := []string{gateway, authService, userService, emailService, auditService}
	all := []fault{
		{
			name: "clocks of all services jump by an hour", lasts: 2 * time.Second, parts: []string{clocks}, uses: with(signingUp, redisServer),
			inject: func(ctx context.Context, p *phase) error {
				err := p.jump(clockJump, services...)
				return errors.Join(err, pause(ctx, 2*time.Second), p.jump(-clockJump, services...))
			},
			heal:   func(_ context.Context, p *phase) error { return p.jump(0, services...) },
			effect: wrongTimes,
		},
		{
			name: "clock of one auth-service and one audit-service ahead", lasts: 4 * time.Second, parts: []string{clocks},
			inject: func(_ context.Context, p *phase) error { return p.jumpOne(clockJump) },
			heal:   func(_ context.Context, p *phase) error { return p.jumpOne(0) }, effect: wrongTimes,
		},
		{
			name: "Redis FLUSHALL after the clock of a database was ahead", lasts: 500 * time.Millisecond,
			inject: flushAhead, heal: nothing, effect: hits,
		},
	}
	for i := range all {
		all[i].needs.clocks = true
	}
	return all
}

// jump sets the clocks of all processes of the services.
func (p *phase) jump(offset time.Duration, services ...string) error {
	var errs []error
	for _, one := range p.stack.of(services...) {
		errs = append(errs, one.clock.set(offset))
	}
	return errors.Join(errs...)
}

// jumpOne sets the clock of one of several auth-services, the one with the clients, and of
// one audit-service.
func (p *phase) jumpOne(offset time.Duration) error {
	return errors.Join(p.stack.of(authService)[0].clock.set(offset), p.stack.of(auditService)[0].clock.set(offset))
}

// wrongTimes returns the number of log lines of this phase whose time is wrong. The events
// have the time of their producer's database.
func wrongTimes(_ context.Context, p *phase) (n int64, _ error) {
	for _, one := range p.stack.processes {
		data, err := os.ReadFile(one.log.Name())
		if err != nil {
			return n, err
		}
		for line := range bytes.Lines(data) {
			var entry struct{ Time time.Time }
			if json.Unmarshal(line, &entry) == nil && (p.covers(entry.Time.Add(-clockJump)) || p.covers(entry.Time.Add(clockJump))) {
				n++
			}
		}
	}
	return n, nil
}

// covers reports whether a time is in the phase, which has not ended.
func (p *phase) covers(t time.Time) bool { return t.After(p.started) && t.Before(time.Now()) }

// flushAhead empties Redis after events were published while the clock of the producers'
// databases was ahead. The clocks are right again when the events are missed.
func flushAhead(ctx context.Context, p *phase) (err error) {
	set := func(offset string) error {
		var errs []error
		for _, database := range producers {
			errs = append(errs, p.stack.databases[database].setClock(ctx, offset))
		}
		return errors.Join(errs...)
	}
	defer func() { err = errors.Join(err, set("0")) }()
	if err := set("1h"); err != nil {
		return err
	}
	return flush(ctx, p)
}
