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

// run is one run: the processes and everything that was observed.
type run struct {
	opts      options
	dir       string
	began     time.Time
	stack     *stack
	observer  *observer
	history   *history
	workload  *workload
	tail      *tail
	injected  *entrySet       // entries that the run has added to the streams
	malformed *entrySet       // injected entries that must become dead letters
	checked   map[string]bool // sign-ups that need not be checked again
	verdicts  *verdictSampler
	reverts   []reversion
	late      []func(context.Context) error // what must be true at the end
	results   []result
}

func newRun(ctx context.Context, opts options, n needs, dir string) (_ *run, err error) {
	r := &run{
		opts: opts, dir: dir, began: time.Now(),
		injected: newEntrySet(), malformed: newEntrySet(), checked: map[string]bool{},
	}
	if r.stack, err = newStack(ctx, opts.root, dir, n); err != nil {
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
	r.verdicts = newVerdictSampler(r)
	return r, nil
}

// reverted says whether a restore of the database may have removed the operation.
func (r *run) reverted(database string, o operation) bool {
	return (&checker{evidence: evidence{Reversions: r.reverts}}).reverted(database, o)
}

func (r *run) close() error {
	r.workload.end()
	r.verdicts.end()
	r.tail.end()
	return errors.Join(r.observer.close(), r.stack.close(), r.history.close())
}

// logf prints a line of progress.
func (r *run) logf(format string, values ...any) {
	fmt.Fprintf(r.opts.out, "%6.1fs  %s\n", time.Since(r.began).Seconds(), fmt.Sprintf(format, values...))
}

// enter begins a phase: operations and mails from now on belong to it.
func (r *run) enter(phase string) {
	r.history.enter(phase)
	r.stack.smtp.enter(phase)
}

const calm = "calm"

// runFaults runs the faults one after another, under load.
func (r *run) runFaults(ctx context.Context, chosen []fault) error {
	r.enter(calm)
	started := time.Now()
	r.workload.start(ctx, r.opts.seed)
	r.verdicts.start(ctx)
	if err := pause(ctx, 3*time.Second); err != nil {
		return err
	}
	first := result{name: calm, started: started, effect: 1}
	if first.missing = r.newPhase(calm).settle(ctx, nil, time.Now().Add(r.opts.recovery), func() int64 { return 0 }); first.missing == 0 {
		first.recovered = time.Nanosecond
	}
	r.results = append(r.results, first)
	for _, f := range chosen {
		res, err := r.runFault(ctx, f)
		if err != nil {
			return fmt.Errorf("%s: %w", f.name, err)
		}
		r.results = append(r.results, res)
		r.logf("%s", res)
	}
	r.workload.end()
	r.verdicts.end()
	return nil
}

func (r result) String() string {
	text := fmt.Sprintf("%-42s effect %d", r.name, r.effect)
	if r.recovered > 0 {
		text += fmt.Sprintf(", recovered in %.1fs", r.recovered.Seconds())
	} else {
		text += fmt.Sprintf(", NOT recovered: %d sign-ups have no record or no mail", r.missing)
	}
	return strings.Join(append([]string{text}, r.errors...), "; ")
}

const idleTimeout = time.Minute

// verify waits until the system is idle, reads the evidence and checks it.
func (r *run) verify(ctx context.Context) (*verdict, error) {
	v := &verdict{}
	reason := ""
	err := eventually(ctx, min(idleTimeout, r.opts.recovery), "the system is idle", func() (done bool, _ error) {
		done, reason = r.observer.idle(ctx)
		return done, nil
	})
	if errors.Is(err, errTimeout) {
		v.errors = append(v.errors, "not idle: "+reason)
	} else if err != nil {
		return nil, err
	}
	v.errors = append(v.errors, r.finally(ctx)...)
	r.logf("idle; signing in to every account")
	e, err := r.evidence(ctx)
	if err != nil {
		return nil, err
	}
	v.evidence = e
	v.violations, v.window = check(e)
	for _, res := range r.results {
		if res.effect == 0 {
			v.errors = append(v.errors, res.name+": the fault had no effect")
		}
		if res.recovered == 0 {
			v.errors = append(v.errors, fmt.Sprintf("%s: %d sign-ups had no record or no mail after %s", res.name, res.missing, r.opts.recovery))
		}
		for _, t := range res.errors {
			v.errors = append(v.errors, res.name+": "+t)
		}
	}
	return v, nil
}

// finally checks what must be true when the system is idle: what faults have asked for, and
// that every consumer says that it is complete.
func (r *run) finally(ctx context.Context) (failures []string) {
	for _, check := range r.late {
		if err := check(ctx); err != nil {
			failures = append(failures, err.Error())
		}
	}
	for _, consumer := range consumerServices {
		last := ""
		err := eventually(ctx, min(idleTimeout, r.opts.recovery), consumer+" says that it is complete", func() (bool, error) {
			s, err := r.verdicts.sample(ctx, consumer, final)
			last = s.Output
			if err != nil || s.Complete {
				return s.Complete, nil //nolint:nilerr // The service may not answer yet.
			}
			return false, r.acceptLost(ctx, consumer, s.Output)
		})
		if err != nil {
			failures = append(failures, fmt.Sprintf("%v: %s", err, last))
		}
	}
	return failures
}

// evidence reads the stores and returns what the run has observed.
func (r *run) evidence(ctx context.Context) (evidence, error) {
	e := evidence{History: r.history.all(), Windows: map[string]bool{}, Deliveries: r.tail.first(), Reversions: r.reverts, Verdicts: r.verdicts.all()}
	for _, res := range r.results {
		e.Windows[res.name] = res.window
	}
	e.Logins = r.logins(ctx, e.History)
	var err1, err2, err3, err4 error
	e.Audit, err1 = r.observer.auditRows(ctx)
	e.Users, err2 = r.observer.users(ctx)
	e.Profiles, err4 = r.observer.profiles(ctx)
	e.DeadLetters, err3 = r.observer.deadLetters(ctx)
	for i := range e.DeadLetters {
		d := &e.DeadLetters[i]
		d.Injected = r.malformed.has(d.Stream, d.Entry)
		d.Phase = r.phaseAt(d.At)
	}
	for i := range e.Deliveries {
		e.Deliveries[i].Injected = r.injected.has(e.Deliveries[i].Stream, e.Deliveries[i].Entry)
	}
	e.Mails = r.stack.smtp.all()
	return e, errors.Join(err1, err2, err3, err4, ctx.Err())
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

// logins signs in to every account whose sign-up was acknowledged. It returns the error of
// each by address, which is empty if it succeeded.
func (r *run) logins(ctx context.Context, operations []operation) map[string]string {
	const concurrency = 4
	var mu sync.Mutex
	results := map[string]string{}
	emails := make(chan string)
	var running sync.WaitGroup
	for n := range concurrency {
		running.Go(func() {
			for email := range emails {
				reason := r.loginError(ctx, fmt.Sprintf("%s-verify-%d", r.workload.prefix, n), email)
				mu.Lock()
				results[email] = reason
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

// loginTimeout bounds the retries of one user: a busy machine hashes passwords slowly.
const loginTimeout = 3 * time.Minute

// loginError returns why the user cannot sign in, or nothing. It retries temporary errors.
func (r *run) loginError(ctx context.Context, id, email string) string {
	var a answer
	for began := time.Now(); time.Since(began) < loginTimeout && ctx.Err() == nil; {
		a = r.workload.client.call(ctx, request{id: id, method: http.MethodPost, path: loginPath, body: object{"email": email, "password": password}})
		if a.err == nil && a.status < 500 {
			break
		}
	}
	if a.outcome(login) == ok {
		return ""
	}
	return fmt.Sprintf("%d %s", a.status, a.detail())
}
