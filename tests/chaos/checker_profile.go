package main

import (
	"slices"
	"time"
)

// projections is I13: user-service has one profile of every acknowledged sign-up, at most one
// if it is unknown or a restore of auth-service's database may have removed it, and no other.
func (c *checker) projections() {
	profiles := map[string]int{}
	for _, email := range c.Profiles {
		profiles[email]++
	}
	for _, o := range c.History {
		if o.Kind != signup || o.Outcome == fail {
			continue
		}
		n := profiles[o.Email]
		delete(profiles, o.Email)
		switch {
		case n == 0 && o.Outcome == ok && !c.reverted("auth", o):
			c.report(projection, lost, o.Phase, "%s: no profile of %s", o.ID, o.Email)
		case n > 1:
			c.report(projection, duplicated, o.Phase, "%s: %d profiles of %s", o.ID, n, o.Email)
		}
	}
	for email := range profiles {
		c.report(projection, wrong, calm, "a profile of %s, an address without a sign-up", email)
	}
}

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
			if !p.sees(o.Bio) && !c.restoredBetween("user", p.changed, o.End) {
				c.report(ownChanges, wrong, o.Phase, "%s: %s sees the profile of %q, want that of %q", o.ID, o.Email, o.Bio, p.last)
			}
		}
	}
}

// profile is what a user knows of the own profile. The operations of a user follow one
// another.
type profile struct {
	last    string      // the id of the last change that was acknowledged or seen; empty if there is none
	changed time.Time   // before that change
	unknown []operation // changes of which nobody knows whether, or when, they were made
}

// change adds a change. If it was acknowledged, it hides the unknown ones that had ended by
// then: a service gives up a request when its client does.
func (p *profile) change(o operation) {
	if o.Outcome == unknown {
		p.unknown = append(p.unknown, o)
		return
	}
	p.last, p.changed = o.ID, o.Start
	p.unknown = slices.DeleteFunc(p.unknown, func(u operation) bool { return u.Start.Add(clientTimeout).Before(o.Start) })
}

// sees says whether the user may see the change. An unknown one that was seen was made, so it
// is the last one from then on.
func (p *profile) sees(bio string) bool {
	i := slices.IndexFunc(p.unknown, func(u operation) bool { return u.ID == bio })
	if i < 0 {
		return bio == p.last
	}
	p.last, p.changed = bio, p.unknown[i].Start
	p.unknown = slices.Delete(p.unknown, i, i+1)
	return true
}

// restoredBetween says whether a restore of the database may have removed what was changed
// at one time and is seen at another.
func (c *checker) restoredBetween(database string, changed, seen time.Time) bool {
	return slices.ContainsFunc(c.Reversions, func(r reversion) bool {
		return r.Database == database && changed.Before(r.Restored) && seen.After(r.Copied)
	})
}
