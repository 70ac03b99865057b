package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"regexp"
	"time"
)

// fault is one way to break the system.
type fault struct {
	name  string
	lasts time.Duration // between inject and heal
	// always and quick say whether a short run includes the fault: always, or if the seed
	// selects it.
	always, quick bool
	// window says that mails accepted in this phase may be sent twice: after the death of
	// the sender or of the connection, the sender cannot know that the mail was accepted.
	window bool

	inject func(ctx context.Context, p *phase) error
	heal   func(ctx context.Context, p *phase) error
	// effect returns the size of the fault's effect now. It is measured repeatedly; a fault
	// that never has an effect fails the run.
	effect func(ctx context.Context, p *phase) (int64, error)
}

// phase is the time from the injection of a fault until the recovery from it.
type phase struct {
	*run
	name    string
	started time.Time
	hits    int64        // the effect that inject itself has measured
	undo    func() error // ends what inject has started in the background
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

func faults() []fault {
	var all []fault
	for _, some := range [][]fault{processFaults(), redisFaults(), postgresFaults(), smtpFaults(), streamFaults()} {
		all = append(all, some...)
	}
	return all
}

const shortExtras = 3

// schedule returns the faults of a run, in an order that depends on the seed.
func schedule(opts options) ([]fault, error) {
	wanted, err := regexp.Compile(opts.only)
	if err != nil {
		return nil, fmt.Errorf("read -only: %w", err)
	}
	random := rand.New(rand.NewPCG(opts.seed, 0xfa17))
	all := faults()
	random.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	var chosen []fault
	extras := 0
	for _, f := range all {
		if !wanted.MatchString(f.name) {
			continue
		}
		if opts.short && !f.always {
			if !f.quick || extras == shortExtras {
				continue
			}
			extras++
		}
		if opts.lasts > 0 {
			f.lasts = opts.lasts
		}
		chosen = append(chosen, f)
	}
	if len(chosen) == 0 {
		return nil, errors.New("no fault matches -only")
	}
	return chosen, nil
}

const (
	leadIn       = time.Second // of load before each fault
	pollInterval = 200 * time.Millisecond
)

// runFault injects a fault, heals it and waits for the recovery. After an error the run
// cannot continue.
func (r *run) runFault(ctx context.Context, f fault) (result, error) {
	p := &phase{run: r, name: f.name, started: time.Now(), undo: func() error { return nil }}
	r.enter(f.name)
	res := result{name: f.name, window: f.window, started: p.started}
	if err := pause(ctx, leadIn); err != nil {
		return res, err
	}
	if err := f.inject(ctx, p); err != nil {
		res.errors = append(res.errors, fmt.Sprintf("inject: %v", err))
	}
	measure := func() {
		// The fault may also make the measurement fail.
		if n, err := f.effect(ctx, p); err == nil {
			res.effect = max(res.effect, n)
		}
	}
	r.during(ctx, f.lasts, measure)
	measure()
	healed := time.Now()
	if err := f.heal(ctx, p); err != nil {
		return res, fmt.Errorf("heal %s: %w", f.name, err)
	}
	res.missing = r.settle(ctx, time.Now(), healed.Add(r.opts.recovery), measure)
	if res.missing == 0 {
		res.recovered = time.Since(healed)
	}
	if res.effect == 0 { // Clients may still be waiting for a response.
		r.during(ctx, clientTimeout, measure)
	}
	ended, err := r.stack.ready(ctx)
	if err != nil {
		return res, err
	}
	res.errors = append(res.errors, ended...)
	return res, ctx.Err()
}

// during calls f at intervals for the duration d.
func (r *run) during(ctx context.Context, d time.Duration, f func()) {
	end := time.NewTimer(d)
	defer end.Stop()
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-end.C:
			return
		case <-tick.C:
			f()
		}
	}
}

// settle waits until every sign-up that was acknowledged before by has its record and its
// mail. It returns how many do not at the deadline. Later phases do not wait for those.
func (r *run) settle(ctx context.Context, by, deadline time.Time, measure func()) int {
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	for {
		missing, err := r.outstanding(ctx, by)
		measure()
		switch {
		case ctx.Err() != nil:
			return len(missing)
		case err == nil && len(missing) == 0:
			return 0
		case time.Now().After(deadline):
			for _, id := range missing {
				r.checked[id] = true
			}
			return max(1, len(missing))
		}
		select {
		case <-ctx.Done():
		case <-tick.C:
		}
	}
}

// outstanding returns the acknowledged sign-ups without record or mail.
func (r *run) outstanding(ctx context.Context, by time.Time) ([]string, error) {
	var unrecorded, missing []string
	for _, o := range r.history.all() {
		if o.Kind != signup || o.Outcome != ok || o.End.After(by) || r.checked[o.ID] {
			continue
		}
		if !o.Injected && !r.stack.smtp.has(o.Email) {
			missing = append(missing, o.ID)
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

func unknowns(_ context.Context, p *phase) (int64, error) {
	return p.history.count(p.name, unknown), nil
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
