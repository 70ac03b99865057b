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
	// always and quick say whether a short run has it: certainly, or perhaps.
	always, quick bool
	// window says that mails accepted in this phase may come twice: no protocol
	// can tell the sender's death, or a connection's, from a mail not taken.
	window bool

	inject func(ctx context.Context, p *phase) error
	heal   func(ctx context.Context, p *phase) error
	// bit returns by how much the fault is felt now. It is asked again and again;
	// a fault that is never felt makes the run fail.
	bit func(ctx context.Context, p *phase) (int64, error)
}

// phase is a fault while it is in force, and until it is recovered from.
type phase struct {
	*run
	name    string
	started time.Time
	struck  int64        // what inject itself has measured
	undo    func() error // what inject has begun in the background, for heal
}

// result is what became of a phase.
type result struct {
	name      string
	window    bool
	started   time.Time
	bit       int64
	trouble   []string
	recovered time.Duration // 0 if that was not in time
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

// schedule returns the faults of a run in the order that the seed decides.
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
		return nil, errors.New("no fault has that name")
	}
	return chosen, nil
}

const (
	leadIn = time.Second // of load before each fault
	look   = 200 * time.Millisecond
)

// endure goes through one fault. Its error says that the run cannot go on.
func (r *run) endure(ctx context.Context, f fault) (result, error) {
	p := &phase{run: r, name: f.name, started: time.Now(), undo: func() error { return nil }}
	r.enter(f.name)
	res := result{name: f.name, window: f.window, started: p.started}
	if err := pause(ctx, leadIn); err != nil {
		return res, err
	}
	if err := f.inject(ctx, p); err != nil {
		res.trouble = append(res.trouble, fmt.Sprintf("inject: %v", err))
	}
	feel := func() {
		// While the fault is in force it may keep us from looking, too.
		if n, err := f.bit(ctx, p); err == nil {
			res.bit = max(res.bit, n)
		}
	}
	r.during(ctx, f.lasts, feel)
	feel()
	healed := time.Now()
	if err := f.heal(ctx, p); err != nil {
		return res, fmt.Errorf("heal %s: %w", f.name, err)
	}
	res.missing = r.settle(ctx, time.Now(), healed.Add(r.opts.recovery), feel)
	if res.missing == 0 {
		res.recovered = time.Since(healed)
	}
	if res.bit == 0 { // Clients may still be waiting for an answer.
		r.during(ctx, patience, feel)
	}
	ended, err := r.stack.ready(ctx)
	if err != nil {
		return res, err
	}
	res.trouble = append(res.trouble, ended...)
	return res, ctx.Err()
}

// during calls f at intervals for that long.
func (r *run) during(ctx context.Context, d time.Duration, f func()) {
	end := time.NewTimer(d)
	defer end.Stop()
	tick := time.NewTicker(look)
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

// settle waits until every sign-up that was acknowledged by then has its record
// and its mail. It returns how many have not at the deadline; later phases do
// not wait for those again.
func (r *run) settle(ctx context.Context, by, deadline time.Time, feel func()) int {
	tick := time.NewTicker(look)
	defer tick.Stop()
	for {
		missing, err := r.outstanding(ctx, by)
		feel()
		switch {
		case ctx.Err() != nil:
			return len(missing)
		case err == nil && len(missing) == 0:
			return 0
		case time.Now().After(deadline):
			for _, id := range missing {
				r.settled[id] = true
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
		if o.Kind != signup || o.Outcome != ok || o.End.After(by) || r.settled[o.ID] {
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
		r.settled[id] = true
	}
	for _, id := range unrecorded {
		if !r.settled[id] {
			missing = append(missing, id)
		}
	}
	return missing, nil
}

// The measures that several faults share.

func unknowns(_ context.Context, p *phase) (int64, error) {
	return p.history.count(p.name, unknown), nil
}

func struck(_ context.Context, p *phase) (int64, error) { return p.struck, nil }

func refusals(_ context.Context, p *phase) (int64, error) { return p.stack.smtp.refusals(), nil }

func stuck(ctx context.Context, p *phase) (int64, error) { return p.observer.stuck(ctx, "auth") }

// usual is how many entries a healthy group may have before it at a glance.
const usual = 4

func unread(service string) func(context.Context, *phase) (int64, error) {
	return func(ctx context.Context, p *phase) (int64, error) {
		w, err := p.observer.group(ctx, service)
		if w.total() <= usual {
			return 0, err
		}
		return w.total(), err
	}
}

func nothing(context.Context, *phase) error { return nil }
