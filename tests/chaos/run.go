package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"
)

// run is one run: everything that runs, and what was seen of it.
type run struct {
	opts      options
	dir       string
	began     time.Time
	stack     *stack
	observer  *observer
	history   *history
	workload  *workload
	tail      *tail
	injected  *entrySet // entries that we have added to the streams
	malformed *entrySet // those of them that must become dead letters
	settled   map[string]bool
	results   []result
}

func newRun(ctx context.Context, opts options, dir string) (_ *run, err error) {
	r := &run{
		opts: opts, dir: dir, began: time.Now(),
		injected: newEntrySet(), malformed: newEntrySet(), settled: map[string]bool{},
	}
	if r.stack, err = newStack(ctx, opts.root, dir); err != nil {
		return nil, err
	}
	if r.observer, err = newObserver(ctx, r.stack); err != nil {
		return nil, errors.Join(err, r.stack.close())
	}
	if r.history, err = newHistory(dir); err != nil {
		return nil, errors.Join(err, r.observer.close(), r.stack.close())
	}
	r.workload = newWorkload(newClient(r.stack.gateway), r.history, opts.seed)
	r.tail = newTail(r.observer.redis)
	r.tail.start(ctx)
	return r, nil
}

func (r *run) close() error {
	r.workload.end()
	r.tail.end()
	return errors.Join(r.observer.close(), r.stack.close(), r.history.close())
}

func (r *run) say(format string, values ...any) {
	fmt.Fprintf(r.opts.out, "%6.1fs  %s\n", time.Since(r.began).Seconds(), fmt.Sprintf(format, values...))
}

// enter begins a phase: what happens from now on belongs to it.
func (r *run) enter(phase string) {
	r.history.enter(phase)
	r.stack.smtp.enter(phase)
}

const calm = "calm"

// storm goes through the faults under load.
func (r *run) storm(ctx context.Context, chosen []fault) error {
	r.enter(calm)
	started := time.Now()
	r.workload.start(ctx, r.opts.seed)
	if err := pause(ctx, 3*time.Second); err != nil {
		return err
	}
	first := result{name: calm, started: started, bit: 1}
	if first.missing = r.settle(ctx, time.Now(), time.Now().Add(r.opts.recovery), func() {}); first.missing == 0 {
		first.recovered = time.Nanosecond
	}
	r.results = append(r.results, first)
	for _, f := range chosen {
		res, err := r.endure(ctx, f)
		if err != nil {
			return fmt.Errorf("%s: %w", f.name, err)
		}
		r.results = append(r.results, res)
		r.say("%s", res)
	}
	r.workload.end()
	return nil
}

func (r result) String() string {
	text := fmt.Sprintf("%-42s bit %d", r.name, r.bit)
	if r.recovered > 0 {
		text += fmt.Sprintf(", recovered in %.1fs", r.recovered.Seconds())
	} else {
		text += fmt.Sprintf(", NOT recovered: %d sign-ups have no record or no mail", r.missing)
	}
	return strings.Join(append([]string{text}, r.trouble...), "; ")
}

const quietTimeout = time.Minute

// judge waits until nothing moves, reads everything back and checks it.
func (r *run) judge(ctx context.Context) (*verdict, error) {
	v := &verdict{}
	reason := ""
	err := eventually(ctx, min(quietTimeout, r.opts.recovery), "all is quiet", func() (done bool, _ error) {
		done, reason = r.observer.quiet(ctx)
		return done, nil
	})
	if errors.Is(err, errTimeout) {
		v.faults = append(v.faults, "not quiet: "+reason)
	} else if err != nil {
		return nil, err
	}
	r.say("quiet; signing everybody in")
	e, err := r.evidence(ctx)
	if err != nil {
		return nil, err
	}
	v.evidence = e
	v.violations, v.window = check(e)
	for _, res := range r.results {
		if res.bit == 0 {
			v.faults = append(v.faults, res.name+": the fault did not bite")
		}
		if res.recovered == 0 {
			v.faults = append(v.faults, fmt.Sprintf("%s: %d sign-ups had no record or no mail after %s", res.name, res.missing, r.opts.recovery))
		}
		for _, t := range res.trouble {
			v.faults = append(v.faults, res.name+": "+t)
		}
	}
	return v, nil
}

// evidence reads everything back.
func (r *run) evidence(ctx context.Context) (evidence, error) {
	e := evidence{History: r.history.all(), Windows: map[string]bool{}, Deliveries: r.tail.first()}
	for _, res := range r.results {
		e.Windows[res.name] = res.window
	}
	e.Logins = r.logins(ctx, e.History)
	var err1, err2, err3 error
	e.Audit, err1 = r.observer.auditRows(ctx)
	e.Users, err2 = r.observer.users(ctx)
	e.DeadLetters, err3 = r.observer.deadLetters(ctx)
	for i := range e.DeadLetters {
		l := &e.DeadLetters[i]
		l.Injected = r.malformed.has(l.Stream, l.Entry)
		l.Phase = r.phaseAt(l.At)
	}
	for i := range e.Deliveries {
		e.Deliveries[i].Injected = r.injected.has(e.Deliveries[i].Stream, e.Deliveries[i].Entry)
	}
	e.Mails = r.stack.smtp.all()
	return e, errors.Join(err1, err2, err3, ctx.Err())
}

func (r *run) phaseAt(at time.Time) string {
	name := calm
	for _, res := range r.results {
		if !res.started.After(at) {
			name = res.name
		}
	}
	return name
}

// logins signs in everybody whose sign-up was acknowledged, and returns what
// went wrong by address: nothing for those who can.
func (r *run) logins(ctx context.Context, operations []operation) map[string]string {
	const atOnce = 4
	var mu sync.Mutex
	results := map[string]string{}
	emails := make(chan string)
	var running sync.WaitGroup
	for n := range atOnce {
		running.Go(func() {
			for email := range emails {
				fault := r.canLogin(ctx, fmt.Sprintf("%s-verify-%d", r.workload.prefix, n), email)
				mu.Lock()
				results[email] = fault
				mu.Unlock()
			}
		})
	}
	for _, o := range operations {
		if o.Kind == signup && o.Outcome == ok && ctx.Err() == nil {
			emails <- o.Email
		}
	}
	close(emails)
	running.Wait()
	return results
}

// canLogin returns why the user cannot sign in. What may pass is tried again.
func (r *run) canLogin(ctx context.Context, id, email string) string {
	const tries = 3
	var a answer
	for range tries {
		a = r.workload.client.call(ctx, id, http.MethodPost, loginPath, "", object{"email": email, "password": password})
		if a.err == nil && a.status < 500 {
			break
		}
	}
	if a.outcome(true) == ok {
		return ""
	}
	return fmt.Sprintf("%d %s", a.status, a.detail())
}
