package main

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"time"

	"golang.org/x/crypto/argon2"
)

const waiting = 200 // logins at a time

// login compares auth-service's logins with what the machine could hash if it did
// nothing else, and shows what it does to everybody else when many wait.
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
	return b.crowded(ctx, c, accounts[:watched], accounts[watched:])
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
	// Two cores that share a cache or a clock do less than twice what one does
	// alone, and no login changes that: so the limit is named both ways.
	alone := medians["one"] * float64(cores)
	b.report.add("login", fmt.Sprintf("Argon2id, cores ÷ time of one alone (%.1f ms)", 1000/medians["one"]), perSecond(alone), "", "", "")
	b.report.add("login", fmt.Sprintf("Argon2id, cores ÷ time of one of %d (%.1f ms) / that", cores, 1000*float64(cores)/medians["all"]), perSecond(medians["all"]), fmt.Sprintf("%.2f", medians["all"]/alone), "", "")
	b.report.ratio("login", "logins / one alone", perSecond(medians["logins"]), medians["logins"]/alone, 0.9)
	b.report.ratio("login", fmt.Sprintf("logins / one of %d", cores), perSecond(medians["logins"]), medians["logins"]/medians["all"], 0.9)
	return nil
}

// hashRate returns how many hashes a second n loops make.
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

// watched is how many go on with what they do while many log in.
const watched = 8

func (b *bench) crowded(ctx context.Context, c *client, few, crowd []*account) error {
	for _, one := range []struct {
		name string
		ask  func(ctx context.Context, a *account) error
	}{
		{"GET user/me", c.me},
		{"refresh", c.refresh},
	} {
		idle, err := p99(ctx, few, one.ask)
		if err != nil {
			return err
		}
		busyCtx, stop := context.WithCancel(ctx)
		var logins sync.WaitGroup
		for _, a := range crowd {
			logins.Go(func() {
				for busyCtx.Err() == nil {
					_ = c.login(busyCtx, a) // Those that are refused because too many wait are part of it.
				}
			})
		}
		busy, err := p99(ctx, few, one.ask)
		stop()
		logins.Wait()
		if err != nil {
			return err
		}
		b.report.add("login", one.name+", p99, idle", idle.Round(10*time.Microsecond).String(), "", "", "")
		b.report.most("login", fmt.Sprintf("%s, p99, while %d logins wait / that", one.name, len(crowd)), busy.Round(10*time.Microsecond).String(), busy.Seconds()/idle.Seconds(), 3)
	}
	return nil
}

// p99 returns the 99th percentile of the time that accounts wait for something,
// each one time after the other with a pause.
func p99(ctx context.Context, accounts []*account, ask func(context.Context, *account) error) (time.Duration, error) {
	const each = 100
	times := make([][]time.Duration, len(accounts))
	faults := make([]error, len(accounts))
	var askers sync.WaitGroup
	for i, a := range accounts {
		askers.Go(func() {
			pause := time.NewTicker(20 * time.Millisecond)
			defer pause.Stop()
			for range each {
				<-pause.C
				started := time.Now()
				if faults[i] = ask(ctx, a); faults[i] != nil {
					return
				}
				times[i] = append(times[i], time.Since(started))
			}
		})
	}
	askers.Wait()
	if err := errors.Join(faults...); err != nil {
		return 0, err
	}
	all := slices.Concat(times...)
	slices.Sort(all)
	return all[len(all)*99/100], nil
}
