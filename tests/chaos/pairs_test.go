package main

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// TestPairs: each run has pairs. Neither fault of a pair disturbs what the other one disturbs
// or uses.
func TestPairs(t *testing.T) {
	t.Parallel()
	for seed := range uint64(200) {
		if n := len(choosePairs(rand.New(rand.NewPCG(seed, 0)), faults())); n != pairs {
			t.Errorf("seed %d has %d pairs, want %d", seed, n, pairs)
		}
	}
	both := fault{parts: []string{"x", "y"}}
	for name, tc := range map[string]struct {
		other fault
		want  bool
	}{
		"a part of it":               {fault{parts: []string{"y"}}, false},
		"another part":               {fault{parts: []string{"z"}}, true},
		"another part that needs it": {fault{parts: []string{"z"}, uses: []string{"x"}}, false},
		"no parts":                   {fault{}, false},
	} {
		if got, back := independent(both, tc.other), independent(tc.other, both); got != tc.want || back != tc.want {
			t.Errorf("independent() of %s = %v, and the other way round %v; want %v", name, got, back, tc.want)
		}
	}
}

// TestEveryFaultCanBePaired: the faults that disturb some parts only are not left out of the
// pairs, because nothing else is independent of them.
func TestEveryFaultCanBePaired(t *testing.T) {
	t.Parallel()
	all := faults()
	for _, f := range all {
		if len(f.parts) > 0 && !slices.ContainsFunc(all, func(other fault) bool { return independent(f, other) }) {
			t.Errorf("no fault can be paired with %q", f.name)
		}
	}
}

// half returns a fault with an effect.
func half(name string, effect func(p *phase) int64) fault {
	return fault{
		name: name, consumers: []string{name}, lasts: time.Second,
		inject: nothing, heal: func(_ context.Context, p *phase) error { p.errors = append(p.errors, name); return nil },
		others: func(_ context.Context, p *phase) error {
			if p.broken.IsZero() {
				return errors.New("the phase does not know when the fault was injected")
			}
			return errors.New(name + " stops others")
		},
		effect: func(_ context.Context, p *phase) (int64, error) { return effect(p), nil },
	}
}

func always(*phase) int64 { return 3 }

// TestPairEffect: a pair has an effect if each of its faults had one at some time.
func TestPairEffect(t *testing.T) {
	t.Parallel()
	between := func(from, to time.Duration) func(*phase) int64 {
		return func(p *phase) int64 {
			if age := time.Since(p.started); age < from || age > to {
				return 0
			}
			return 5
		}
	}
	never := func(*phase) int64 { return 0 }
	for name, tc := range map[string]struct {
		first, second func(*phase) int64
		want          int64
	}{
		"both":                            {always, between(0, time.Minute), 3},
		"one after another":               {between(0, 500*time.Millisecond), between(1500*time.Millisecond, 2*time.Second), 5},
		"after the recovery of the other": {always, between(5*time.Second, time.Minute), 3},
		"only the first one":              {always, never, 0},
		"only the other one":              {never, always, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				f, p := newPair(half("a", tc.first), half("b", tc.second)).fault(), &phase{}
				if err := f.inject(t.Context(), p); err != nil {
					t.Fatal(err)
				}
				time.Sleep(f.lasts)
				if err := f.heal(t.Context(), p); err != nil {
					t.Fatal(err)
				}
				if got, err := f.effect(t.Context(), p); got != tc.want || err != nil {
					t.Errorf("effect() = %d, %v, want %d", got, err, tc.want)
				}
			})
		})
	}
}

// TestPairAsksBoth: what each fault of a pair promises is checked.
func TestPairAsksBoth(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f, p := newPair(half("a", always), half("b", always)).fault(), &phase{}
		if err := f.inject(t.Context(), p); err != nil {
			t.Fatal(err)
		}
		err := f.others(t.Context(), p)
		if err == nil || !strings.Contains(err.Error(), "a stops others") || !strings.Contains(err.Error(), "b stops others") {
			t.Errorf("others() = %v, want the errors of both", err)
		}
		if err := f.heal(t.Context(), p); err != nil || !slices.Equal(p.errors, []string{"a", "b"}) {
			t.Errorf("heal() = %v, errors %v, want those of both", err, p.errors)
		}
		if !slices.Equal(f.consumers, []string{"a", "b"}) {
			t.Errorf("the pair waits for %v, want the consumers of both", f.consumers)
		}
	})
}
