package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"regexp"
	"slices"
	"time"
)

func faults() []fault {
	return slices.Concat(processFaults(), redisFaults(), postgresFaults(), smtpFaults(), streamFaults(), restoreFaults(), clockFaults(),
		isolationFaults(), diskFaults())
}

const (
	shortExtras = 3
	pairs       = 4 // in a run
)

// schedule returns the faults of a run, in an order that depends on the seed.
func schedule(opts options) ([]fault, error) {
	wanted, err := regexp.Compile(opts.only)
	if err != nil {
		return nil, fmt.Errorf("read -only: %w", err)
	}
	random := rand.New(rand.NewPCG(opts.seed, 0xfa17))
	all := faults()
	random.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	if !opts.short {
		all = append(all, choosePairs(random, all)...)
		random.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	}
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
		if f.needs.smallDisks && !canMount() {
			fmt.Fprintf(opts.out, "%s: left out, because only root on Linux can mount a small disk\n", f.name)
			continue
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

// choosePairs returns faults that are each two of those given, which share no part.
func choosePairs(random *rand.Rand, all []fault) []fault {
	var chosen []fault
	used := map[string]bool{}
	for _, i := range random.Perm(len(all) * len(all)) {
		a, b := all[i/len(all)], all[i%len(all)]
		if len(chosen) == pairs {
			break
		}
		if a.name == b.name || used[a.name] || used[b.name] || !independent(a, b) {
			continue
		}
		used[a.name], used[b.name] = true, true
		chosen = append(chosen, pair(a, b))
	}
	return chosen
}

func independent(a, b fault) bool {
	shared := func(part string) bool { return slices.Contains(b.parts, part) }
	return len(a.parts) > 0 && len(b.parts) > 0 && !slices.ContainsFunc(a.parts, shared)
}

// pair returns a fault that is two faults at the same time.
func pair(a, b fault) fault {
	var first, second *phase
	return fault{
		name:  "two at once: " + a.name + ", " + b.name,
		lasts: max(a.lasts, b.lasts), needs: a.needs.and(b.needs), window: a.window || b.window,
		inject: func(ctx context.Context, p *phase) error {
			first, second = p.newPhase(p.name), p.newPhase(p.name)
			return errors.Join(a.inject(ctx, first), b.inject(ctx, second))
		},
		heal: func(ctx context.Context, p *phase) error {
			err := errors.Join(b.heal(ctx, second), a.heal(ctx, first))
			p.errors = slices.Concat(first.errors, second.errors)
			return err
		},
		effect: func(ctx context.Context, _ *phase) (int64, error) {
			one, err1 := a.effect(ctx, first)
			other, err2 := b.effect(ctx, second)
			if err1 != nil && err2 != nil {
				return 0, errors.Join(err1, err2)
			}
			return one + other, nil
		},
	}
}

// roundSeed returns the seed of a round of a long run. The first round has the seed of the
// run, so each round can be repeated alone.
func roundSeed(seed uint64, round int) uint64 {
	if round == 0 {
		return seed
	}
	random := rand.New(rand.NewPCG(seed, 0x40fd))
	for range round - 1 {
		random.Uint64N(1_000_000)
	}
	return random.Uint64N(1_000_000)
}

// rounds does runs with new seeds until the time is over. It stops at the first one that
// fails.
func rounds(ctx context.Context, opts options, lasts time.Duration) error {
	began := time.Now()
	first := opts.seed
	fmt.Fprintf(opts.out, "rounds for %s; repeat them with -seed %d -for %s, or one round with its own seed\n", lasts, first, lasts)
	for n := 0; n == 0 || time.Since(began) < lasts; n++ {
		opts.seed = roundSeed(first, n)
		fmt.Fprintf(opts.out, "round %d, seed %d\n", n+1, opts.seed)
		if err := runAll(ctx, opts); err != nil {
			return fmt.Errorf("round %d, seed %d: %w", n+1, opts.seed, err)
		}
	}
	return nil
}
