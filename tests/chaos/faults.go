package main

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/redis/go-redis/v9"
)

// fault is one way to break the system.
type fault struct {
	name  string
	lasts time.Duration // between inject and heal
	// always and quick say whether a short run includes the fault: always, or if the seed
	// selects it.
	always, quick bool
	// parts are what the fault disturbs, and uses what must work while it is injected and
	// healed and while others are checked. A fault without parts is never one of a pair.
	parts, uses []string
	needs       needs
	// window says that mails accepted in this phase may be sent twice: after the death of
	// the sender or of the connection, the sender cannot know that the mail was accepted.
	window bool

	inject func(ctx context.Context, p *phase) error
	// others, if any, fails unless what the fault does not concern still works. It is called
	// before the heal.
	others func(ctx context.Context, p *phase) error
	heal   func(ctx context.Context, p *phase) error
	// consumers are services that must have a record of every event before the system has
	// recovered.
	consumers []string
	// effect returns the size of the fault's effect now. It is measured repeatedly; a fault
	// that never has an effect fails the run.
	effect func(ctx context.Context, p *phase) (int64, error)
}

// The parts that are no service.
const (
	redisServer = "redis"
	mailServer  = "smtp"
	clocks      = "clocks"
)

func postgresOf(database string) string { return "postgres-" + database }

// The parts that must work until a user has signed up, has a record and has a mail.
var (
	signingUp = []string{gateway, authService, postgresOf("auth")}
	auditing  = with(signingUp, redisServer, auditService, postgresOf("audit"))
	mailing   = with(signingUp, redisServer, emailService, postgresOf("email"), mailServer)
)

func with(parts []string, more ...string) []string { return slices.Concat(parts, more) }

// needs are what a fault needs of the system from its start.
type needs struct {
	clocks     bool // services and databases whose clock can be set
	smallDisks bool // databases whose disk can be filled
}

func (n needs) and(other needs) needs {
	return needs{clocks: n.clocks || other.clocks, smallDisks: n.smallDisks || other.smallDisks}
}

// phase is the time from the injection of a fault until the recovery from it.
type phase struct {
	*run
	name    string
	started time.Time
	broken  time.Time                   // when inject had returned
	hits    int64                       // the effect that inject itself has measured
	undo    func() error                // ends what inject has started in the background
	own     *entrySet                   // malformed entries that inject has added
	kept    map[string][]redis.XMessage // the newest entries when inject ended Redis
	errors  []string                    // promises that were broken during the fault
}

func (r *run) newPhase(name string) *phase {
	return &phase{run: r, name: name, started: time.Now(), undo: func() error { return nil }}
}

// result is the result of a phase.
type result struct {
	name      string
	window    bool
	started   time.Time
	effect    int64
	errors    []string
	recovered time.Duration // 0 if the system did not recover in time
	missing   int
}

const (
	leadIn       = time.Second // of load before each fault
	pollInterval = 200 * time.Millisecond
)

// runFault injects a fault, heals it and waits for the recovery. After an error the run
// cannot continue.
func (r *run) runFault(ctx context.Context, f fault) (result, error) {
	p := r.newPhase(f.name)
	r.enter(f.name)
	res := result{name: f.name, window: f.window, started: p.started}
	if err := pause(ctx, leadIn); err != nil {
		return res, err
	}
	if err := f.inject(ctx, p); err != nil {
		res.errors = append(res.errors, fmt.Sprintf("inject: %v", err))
	}
	p.broken = time.Now()
	measure := func() int64 {
		// The fault may also make the measurement fail.
		if n, err := f.effect(ctx, p); err == nil {
			res.effect = max(res.effect, n)
		}
		return res.effect
	}
	r.last(ctx, f.lasts, measure)
	if f.others != nil && len(res.errors) == 0 {
		if err := f.others(ctx, p); err != nil {
			res.errors = append(res.errors, err.Error())
		}
	}
	healed := time.Now()
	if err := f.heal(ctx, p); err != nil {
		return res, fmt.Errorf("heal %s: %w", f.name, err)
	}
	res.missing = p.settle(ctx, f.consumers, healed.Add(r.opts.recovery), measure)
	if res.missing == 0 {
		res.recovered = time.Since(healed)
	}
	if res.effect == 0 { // Clients may still be waiting for a response.
		_ = eventually(ctx, clientTimeout, "the fault has an effect", func() (bool, error) { return measure() > 0, nil })
	}
	ended, err := r.stack.ready(ctx)
	if err != nil {
		return res, err
	}
	res.errors = append(res.errors, append(ended, p.errors...)...)
	return res, ctx.Err()
}

// last waits while a fault lasts: for d, and on a busy machine longer until measure returns an
// effect.
func (r *run) last(ctx context.Context, d time.Duration, measure func() int64) {
	began := time.Now()
	for measure() == 0 && time.Since(began) < d+injectTimeout || time.Since(began) < d {
		if pause(ctx, pollInterval) != nil {
			return
		}
	}
}

// settle waits until every sign-up that was acknowledged so far has its record and its mail,
// and the consumers have all their records. It returns how many are missing at the deadline.
// Later phases do not wait for those.
func (p *phase) settle(ctx context.Context, consumers []string, deadline time.Time, measure func() int64) int {
	by := time.Now()
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	for {
		missing, err := p.outstanding(ctx, by)
		for _, consumer := range consumers {
			if err == nil && len(missing) == 0 {
				missing, err = p.verdicts.lacks(ctx, consumer)
			}
		}
		measure()
		switch {
		case ctx.Err() != nil:
			return len(missing)
		case err == nil && len(missing) == 0:
			return 0
		case time.Now().After(deadline):
			for _, id := range missing {
				p.checked[id] = true
			}
			return max(1, len(missing))
		}
		select {
		case <-ctx.Done():
		case <-tick.C:
		}
	}
}

// outstanding returns the acknowledged sign-ups without record or mail. It leaves out those
// that a restore may have removed.
func (r *run) outstanding(ctx context.Context, by time.Time) ([]string, error) {
	var unrecorded, missing []string
	for _, o := range r.history.all() {
		if !mailed(o.Kind) || o.Outcome != ok || o.End.After(by) || r.checked[o.ID] || r.reverted("auth", o) {
			continue
		}
		if !o.Injected && !r.stack.smtp.has(o.Email) {
			missing = append(missing, o.ID)
			continue
		}
		if o.Kind == notify {
			r.checked[o.ID] = true
			continue
		}
		unrecorded = append(unrecorded, o.ID)
	}
	found, err := r.observer.recorded(ctx, unrecorded)
	if err != nil {
		return append(missing, unrecorded...), err
	}
	for _, id := range found {
		r.checked[id] = true
	}
	for _, id := range unrecorded {
		if !r.checked[id] {
			missing = append(missing, id)
		}
	}
	return missing, nil
}

// The effects that several faults share.

// unknowns returns the number of operations of these kinds, or of all, whose outcome is
// unknown.
func unknowns(kinds ...string) func(context.Context, *phase) (int64, error) {
	return func(_ context.Context, p *phase) (int64, error) {
		return p.history.unknowns(p.name, kinds), nil
	}
}

func hits(_ context.Context, p *phase) (int64, error) { return p.hits, nil }

func refusals(_ context.Context, p *phase) (int64, error) { return p.stack.smtp.refusals(), nil }

func stuck(ctx context.Context, p *phase) (int64, error) { return p.observer.stuck(ctx, "auth") }

// healthyLag is the number of entries that a healthy group may have to read at any time.
const healthyLag = 4

func unread(service string) func(context.Context, *phase) (int64, error) {
	return func(ctx context.Context, p *phase) (int64, error) {
		w, err := p.observer.group(ctx, service)
		if w.total() <= healthyLag {
			return 0, err
		}
		return w.total(), err
	}
}

func nothing(context.Context, *phase) error { return nil }
