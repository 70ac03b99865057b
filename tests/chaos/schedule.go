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

// shortExtras is the number of faults that the seed selects in a short run.
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
