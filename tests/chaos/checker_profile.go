package main

import (
	"slices"
	"time"
)

// profiles is I12: a client that reads its profile sees its last acknowledged change, or one
// whose outcome is unknown. After a restore of user-service's database it may see any older
// change until it makes the next one.
func (c *checker) profiles() {
	byUser := map[string][]operation{}
	for _, o := range c.History {
		if o.Kind == patch && o.Outcome != fail || o.Kind == read && o.Outcome == ok {
			byUser[o.Email] = append(byUser[o.Email], o)
		}
	}
	for _, operations := range byUser {
		slices.SortStableFunc(operations, func(a, b operation) int { return a.Start.Compare(b.Start) })
		p := profile{}
		for _, o := range operations {
			if o.Kind == patch {
				p.change(o)
				continue
			}
			if !p.maySee(o.Bio) && !c.restoredBetween("user", p.changed, o.End) {
				c.report(ownChanges, wrong, o.Phase, "%s: %s sees the profile of %q, want that of %q", o.ID, o.Email, o.Bio, p.last)
			}
		}
	}
}

// profile is what a user knows of the own profile. The operations of a user follow one
// another.
type profile struct {
	last    string    // the id of the last acknowledged change; empty if there is none
	changed time.Time // before that change
	unknown []string  // ids of the changes of which nobody knows whether, or when, they were made
}

func (p *profile) change(o operation) {
	if o.Outcome == unknown {
		p.unknown = append(p.unknown, o.ID)
		return
	}
	p.last, p.changed = o.ID, o.Start
}

func (p *profile) maySee(bio string) bool { return bio == p.last || slices.Contains(p.unknown, bio) }

// restoredBetween says whether a restore of the database may have removed what was changed
// at one time and is seen at another.
func (c *checker) restoredBetween(database string, changed, seen time.Time) bool {
	return slices.ContainsFunc(c.Reversions, func(r reversion) bool {
		return r.Database == database && changed.Before(r.Restored) && seen.After(r.Copied)
	})
}
