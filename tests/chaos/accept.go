package main

import (
	"context"
	"regexp"
	"slices"
	"strings"
	"time"
)

// lostGap is how gaps says that a producer does not have events, that nobody knows whether it
// had more, or that it has forgotten some: producer/epoch:first..last, producer/epoch:first.. or
// producer/epoch@hour, and a reason.
var lostGap = regexp.MustCompile(`(?m)^((\S+?)/\S*[:@]\S+)\s.*(?:the producer does not have|nobody knows what came next|surplus)`)

// losses are the phases in which stores lost what they had.
type losses struct {
	redis     []string            // Redis came back empty or older.
	restarted map[string][]string // A database was restored, or only its server restarted.
	restored  map[string]bool     // databases
}

// losses returns what was lost so far.
func (r *run) losses() losses {
	l := losses{restarted: map[string][]string{}, restored: map[string]bool{}}
	for _, at := range r.tail.losses() {
		l.redis = append(l.redis, r.phaseAt(at))
	}
	restarted := func(database string, at time.Time) {
		l.restarted[database] = append(l.restarted[database], r.phaseAt(at))
	}
	for name, db := range r.stack.databases {
		for _, at := range db.restarts {
			restarted(name, at)
		}
	}
	for _, v := range r.reverts {
		restarted(v.Database, v.Restored)
		l.restored[v.Database] = true
	}
	return l
}

// explain says whether the losses explain a gap of a consumer. That nobody knows the end of a
// producer's epoch is right only if the producer's database and Redis may have lost the same
// events: in one phase. Then some numbers may have been given twice, which is a surplus. Events
// are gone for good only if the consumer lost them as well, or Redis before it had read them.
func (l losses) explain(consumer, producer, gap string) bool {
	database := databases[producer]
	both := slices.ContainsFunc(l.redis, func(phase string) bool { return slices.Contains(l.restarted[database], phase) })
	if strings.HasSuffix(gap, "..") {
		return both
	}
	if strings.Contains(gap, "@") {
		return both && l.restored[database]
	}
	return l.restored[database] && (both || l.restored[databases[consumer]])
}

// gone says whether an event may exist nowhere for a consumer: a restore of its producer's
// database removed it, and so did a restore of the consumer's database, or Redis lost it
// before the consumer had read it.
func gone(d delivery, consumer string, reverts []reversion, redis []time.Time) bool {
	removed := func(database string, r reversion) bool {
		// The run may see an event late, and the clock of its producer may be ahead.
		before := d.Seen.Before(r.Restored) || d.OccurredAt.Before(r.Restored)
		return r.Database == database && d.Seen.After(r.Copied) && before
	}
	for _, r := range reverts {
		if !removed(databases[d.Producer], r) {
			continue
		}
		if slices.ContainsFunc(redis, func(at time.Time) bool { return at.After(r.Copied) && at.Before(r.Restored) }) {
			return true
		}
		if slices.ContainsFunc(reverts, func(c reversion) bool { return removed(databases[consumer], c) }) {
			return true
		}
	}
	return false
}

// acceptLost does what the runbook says about events that exist nowhere: an operator accepts
// the gaps that the losses of this run explain.
func (r *run) acceptLost(ctx context.Context, consumer, gaps string) error {
	for _, found := range lostGap.FindAllStringSubmatch(gaps, -1) {
		gap, producer := found[1], found[2]
		if !r.losses().explain(consumer, producer, gap) {
			continue // The consumer will never say that it is complete.
		}
		if err := r.stack.operate(ctx, consumer, "gaps", "accept", gap, "-reason", "the database was restored"); err != nil {
			return err
		}
		r.logf("%s: accepted %s", consumer, gap)
	}
	return nil
}
