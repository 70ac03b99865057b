package main

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"time"
)

// pairs is the number of pairs of faults in a run.
const pairs = 4

// choosePairs returns faults that are each two of those given, which do not hide each other.
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
		chosen = append(chosen, newPair(a, b).fault())
	}
	return chosen
}

// independent says whether neither fault disturbs what the other one disturbs or uses.
func independent(a, b fault) bool {
	return len(a.parts) > 0 && len(b.parts) > 0 && !overlap(a.parts, b.parts) && !overlap(a.parts, b.uses) && !overlap(b.parts, a.uses)
}

func overlap(some, others []string) bool {
	return slices.ContainsFunc(some, func(part string) bool { return slices.Contains(others, part) })
}

// pair is two faults at the same time. The first one begins earlier and ends earlier, so each
// is alone for a while and shows its effect: otherwise a dead gateway hides that the database
// behind it is dead as well. Each has a phase of its own, because an injection keeps in it what
// must be undone.
type pair struct {
	faults  [2]fault
	phases  [2]*phase
	effects [2]int64 // the greatest so far
}

func newPair(a, b fault) *pair { return &pair{faults: [2]fault{a, b}} }

func (t *pair) fault() fault {
	a, b := t.faults[0], t.faults[1]
	return fault{
		name:  "two at once: " + a.name + ", " + b.name,
		lasts: max(a.lasts, b.lasts), needs: a.needs.and(b.needs), window: a.window || b.window,
		consumers: slices.Concat(a.consumers, b.consumers),
		inject:    t.inject, others: t.others, heal: t.heal, effect: t.effect,
	}
}

// inject injects the second fault after the first one has lasted alone.
func (t *pair) inject(ctx context.Context, p *phase) error {
	var errs [2]error
	for i, f := range t.faults {
		t.phases[i] = p.newPhase(p.name)
		errs[i] = f.inject(ctx, t.phases[i])
		t.phases[i].broken = time.Now()
		if i == 0 && errs[i] == nil {
			p.last(ctx, f.lasts, func() int64 { return t.measure(ctx, i) })
		}
	}
	return errors.Join(errs[:]...)
}

func (t *pair) others(ctx context.Context, _ *phase) error {
	var errs [2]error
	for i, f := range t.faults {
		if f.others != nil {
			errs[i] = f.others(ctx, t.phases[i])
		}
	}
	return errors.Join(errs[:]...)
}

// heal heals the second fault after it has lasted alone.
func (t *pair) heal(ctx context.Context, p *phase) error {
	var errs [2]error
	for i, f := range t.faults {
		if i == 1 {
			p.last(ctx, f.lasts, func() int64 { return t.measure(ctx, i) })
		}
		errs[i] = f.heal(ctx, t.phases[i])
		p.errors = append(p.errors, t.phases[i].errors...)
	}
	return errors.Join(errs[:]...)
}

// effect returns the smaller of the greatest effects so far, because each fault must have had
// one. They may have it at different times.
func (t *pair) effect(ctx context.Context, _ *phase) (int64, error) {
	return min(t.measure(ctx, 0), t.measure(ctx, 1)), nil
}

// measure returns the greatest effect of one of the faults so far. The other one may make the
// measurement fail.
func (t *pair) measure(ctx context.Context, i int) int64 {
	if n, err := t.faults[i].effect(ctx, t.phases[i]); err == nil {
		t.effects[i] = max(t.effects[i], n)
	}
	return t.effects[i]
}
