package main

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/crypto/argon2"
)

const waiting = 200 // concurrent logins

// login compares the logins of auth-service with the hashes that the machine can compute,
// and measures other requests while many logins wait.
func (b *bench) login(ctx context.Context) error {
	auth, err := b.startService(ctx, "auth-service", "bench_auth", "PUBLIC_BASE_URL=http://localhost", "REFRESH_GRACE=0s")
	if err != nil {
		return err
	}
	running := processes{auth}
	defer func() { running.stop() }()
	user, err := b.startService(ctx, "user-service", "bench_user", "JWKS_URL="+auth.url+"/.well-known/jwks.json")
	if err != nil {
		return err
	}
	running = append(running, user)
	c := newClient(auth.url, user.url)
	accounts, err := c.accounts(ctx, watched+waiting)
	if err != nil {
		return err
	}
	if err := b.loginRate(ctx, c, accounts); err != nil {
		return err
	}
	if err := b.confirmed(ctx, c, accounts[0], accounts[1:]); err != nil {
		return err
	}
	return b.crowded(ctx, c, accounts[:watched], accounts[watched:])
}

// confirmed measures the logins of a stranger while signed-in users confirm their passwords
// as fast as they can: one, with as many requests at a time as it may have, and many. No gateway
// limits them.
func (b *bench) confirmed(ctx context.Context, c *client, stranger *account, others []*account) error {
	const one, many = "1 account confirms its password", "70 accounts confirm their passwords"
	const inLine = 5 // requests of one account that are not rejected
	logins := func(confirming ...*account) func(context.Context) (float64, error) {
		return func(ctx context.Context) (float64, error) {
			stop, err := flood(ctx, confirming, c.confirm)
			if err != nil {
				return 0, err
			}
			defer stop()
			waited, err := waits(ctx, []*account{stranger}, c.login)
			return waited.p99.Seconds(), err
		}
	}
	medians, err := b.alternate(ctx,
		variant{"idle", logins()},
		variant{one, logins(slices.Repeat(others[:1], inLine)...)},
		variant{many, logins(others[:70]...)},
	)
	if err != nil {
		return err
	}
	shown := func(name string) string { return rounded(time.Duration(medians[name] * float64(time.Second))) }
	b.report.figure("login", "login, idle, p99", shown("idle"))
	for _, name := range []string{one, many} {
		b.report.atMost("login", "login, while "+name+", p99 / that", shown(name), medians[name]/medians["idle"], 2)
	}
	return nil
}

// flood makes each account do something again and again until stop is called. It returns
// once that has been done as often as there are accounts.
func flood(ctx context.Context, accounts []*account, do func(context.Context, *account) error) (stop func(), err error) {
	ctx, cancel := context.WithCancel(ctx)
	var running sync.WaitGroup
	var done atomic.Int64
	for _, a := range accounts {
		running.Go(func() {
			for ctx.Err() == nil {
				_ = do(ctx, a) // Requests that are rejected are part of the load.
				done.Add(1)
			}
		})
	}
	stop = func() { cancel(); running.Wait() }
	err = await(ctx, func() (bool, error) { return done.Load() >= int64(len(accounts)), nil })
	if err != nil {
		stop()
	}
	return stop, err
}

func (b *bench) loginRate(ctx context.Context, c *client, accounts []*account) error {
	cores := runtime.NumCPU()
	hashes := func(n int) func(context.Context) (float64, error) {
		return func(context.Context) (float64, error) { return hashRate(n), nil }
	}
	medians, err := b.alternate(ctx,
		variant{"one", hashes(1)},
		variant{"all", hashes(cores)},
		variant{"logins", func(ctx context.Context) (float64, error) { return rate(ctx, accounts[:4*cores], c.login) }},
	)
	if err != nil {
		return err
	}
	// Two cores that share a cache or a clock compute less than twice what one computes
	// alone, and that limits the logins as well: so the limit is reported both ways.
	limit := medians["one"] * float64(cores)
	b.report.figure("login", fmt.Sprintf("Argon2id, cores ÷ time of one alone (%.1f ms)", 1000/medians["one"]), perSecond(limit))
	b.report.compared("login", fmt.Sprintf("Argon2id, cores ÷ time of one of %d (%.1f ms) / that", cores, 1000*float64(cores)/medians["all"]), perSecond(medians["all"]), medians["all"]/limit)
	b.report.atLeast("login", "logins / one alone", perSecond(medians["logins"]), medians["logins"]/limit, 0.9)
	b.report.atLeast("login", fmt.Sprintf("logins / one of %d", cores), perSecond(medians["logins"]), medians["logins"]/medians["all"], 0.9)
	return nil
}

// hashRate returns the hashes a second that n loops compute.
func hashRate(n int) float64 {
	const each = 40
	started := time.Now()
	var loops sync.WaitGroup
	for range n {
		loops.Go(func() {
			for range each {
				argon2.IDKey([]byte(benchPassword), []byte("a salt of 16 b.."), 2, 19<<10, 1, 32)
			}
		})
	}
	loops.Wait()
	return float64(n*each) / time.Since(started).Seconds()
}

// watched is the number of accounts whose requests are measured while many log in.
const watched = 8

func (b *bench) crowded(ctx context.Context, c *client, few, many []*account) error {
	for _, one := range []struct {
		name string
		ask  func(ctx context.Context, a *account) error
	}{
		{"GET user/me", c.me},
		{"refresh", c.refresh},
	} {
		idle, err := waits(ctx, few, one.ask)
		if err != nil {
			return err
		}
		// The queue is full once as many logins have ended as there are accounts.
		stop, err := flood(ctx, many, c.login)
		if err != nil {
			return err
		}
		busy, err := waits(ctx, few, one.ask)
		stop()
		if err != nil {
			return err
		}
		b.report.figure("login", one.name+", idle, p50", rounded(idle.p50))
		b.report.compared("login", fmt.Sprintf("%s, while %d logins wait, p50 / that", one.name, len(many)), rounded(busy.p50), busy.p50.Seconds()/idle.p50.Seconds())
		b.report.figure("login", one.name+", idle, p99", rounded(idle.p99))
		b.report.atMost("login", fmt.Sprintf("%s, while %d logins wait, p99 / that", one.name, len(many)), rounded(busy.p99), busy.p99.Seconds()/idle.p99.Seconds(), 3)
	}
	return nil
}

type percentiles struct{ p50, p99 time.Duration }

func rounded(d time.Duration) string { return d.Round(10 * time.Microsecond).String() }

// waits returns how long accounts wait for a response. Each account sends one request after
// the other, with a pause.
func waits(ctx context.Context, accounts []*account, ask func(context.Context, *account) error) (percentiles, error) {
	const each, warm = 100, 10 // The first requests open connections and prepare statements.
	times := make([][]time.Duration, len(accounts))
	errs := make([]error, len(accounts))
	var running sync.WaitGroup
	for i, a := range accounts {
		running.Go(func() {
			pause := time.NewTicker(20 * time.Millisecond)
			defer pause.Stop()
			for n := range warm + each {
				<-pause.C
				started := time.Now()
				if errs[i] = ask(ctx, a); errs[i] != nil {
					return
				}
				if n >= warm {
					times[i] = append(times[i], time.Since(started))
				}
			}
		})
	}
	running.Wait()
	if err := errors.Join(errs...); err != nil {
		return percentiles{}, err
	}
	all := slices.Concat(times...)
	slices.Sort(all)
	return percentiles{p50: all[len(all)/2], p99: all[len(all)*99/100]}, nil
}
