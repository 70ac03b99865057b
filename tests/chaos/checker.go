package main

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// evidence is all that a run has seen. The names are those of RELIABILITY, 3c.
type evidence struct {
	History     []operation
	Audit       []record
	Mails       []letter // in the order in which they came
	Users       []string // addresses of the accounts
	DeadLetters []deadLetter
	Logins      map[string]string // of acknowledged sign-ups: what went wrong, by address
	Deliveries  []delivery        // those of a stream in its order
	Windows     map[string]bool   // phases in which a mail may come twice
}

// record is a row of the audit log.
type record struct{ Type, Request string }

// deadLetter is what a consumer has given up.
type deadLetter struct {
	Service, Stream, Entry, Type, Reason string

	Payload  []byte
	At       time.Time
	Phase    string
	Injected bool
}

// The effects of a violation.
const (
	lost       = "lost"
	duplicated = "duplicated"
	wrong      = "wrong"
)

// violation is a promise that was not kept.
type violation struct {
	Invariant string `json:"invariant"`
	Effect    string `json:"effect"`
	Phase     string `json:"phase"`
	Detail    string `json:"detail"`
}

// The invariants.
const (
	durability   = "I1 durability"
	noPhantom    = "I2 no phantom"
	auditOnce    = "I3 audit exactly once"
	mailOnce     = "I4 mail exactly once"
	sessionSafe  = "I5 session safety"
	ordering     = "I6 ordering"
	uniqueness   = "I7 uniqueness"
	onlyInjected = "I9 dead letters"
)

// check returns every violation, and the mails that came twice in the window
// that no protocol can close.
func check(e evidence) (found []violation, window []letter) {
	c := checker{evidence: e}
	c.durability()
	c.phantoms()
	c.audit()
	c.mails()
	c.sessions()
	c.order()
	c.letters()
	return c.found, c.window
}

type checker struct {
	evidence
	found  []violation
	window []letter
}

func (c *checker) report(invariant, effect, phase, format string, values ...any) {
	c.found = append(c.found, violation{invariant, effect, phase, fmt.Sprintf(format, values...)})
}

// durability is I1: every acknowledged sign-up can sign in.
func (c *checker) durability() {
	for _, o := range c.History {
		if o.Kind != signup || o.Outcome != ok {
			continue
		}
		if fault, tried := c.Logins[o.Email]; !tried || fault != "" {
			c.report(durability, lost, o.Phase, "%s of %s cannot sign in: %q", o.ID, o.Email, fault)
		}
	}
}

// phantoms is I2 and I7: every account comes from a sign-up that may have
// succeeded, and there is one for each address.
func (c *checker) phantoms() {
	possible := map[string]bool{}
	for _, o := range c.History {
		if o.Kind == signup && o.Outcome != fail {
			possible[o.Email] = true
		}
	}
	accounts := map[string]int{}
	for _, email := range c.Users {
		if !possible[email] {
			c.report(noPhantom, wrong, calm, "account %s: nobody has signed up with that address", email)
		}
		key := strings.ToLower(email)
		if accounts[key]++; accounts[key] == 2 {
			c.report(uniqueness, duplicated, calm, "two accounts of %s", key)
		}
	}
}

// audited says which operations leave which record.
func audited(kind string) string {
	switch kind {
	case signup:
		return "user.signed_up"
	case login:
		return "user.logged_in"
	case refresh:
		return "session.refreshed"
	case patch:
		return "user.profile_updated"
	}
	return ""
}

// audit is I3: one record of what was acknowledged, none of what failed, and of
// the rest none or one.
func (c *checker) audit() {
	records := map[record]int{}
	for _, r := range c.Audit {
		records[r]++
	}
	for _, o := range c.History {
		kind := audited(o.Kind)
		if kind == "" {
			continue
		}
		n := records[record{kind, o.ID}]
		switch {
		case n == 0 && o.Outcome == ok:
			c.report(auditOnce, lost, o.Phase, "%s: no %s", o.ID, kind)
		case n > 1:
			c.report(auditOnce, duplicated, o.Phase, "%s: %d times %s", o.ID, n, kind)
		case n == 1 && o.Outcome == fail:
			c.report(auditOnce, wrong, o.Phase, "%s: failed with %d %s, yet there is %s", o.ID, o.Status, o.Detail, kind)
		}
	}
}

// mails is I4: one mail for what was acknowledged, by Message-ID and by
// recipient, none for what failed, and for the rest none or one.
func (c *checker) mails() {
	letters := map[string][]letter{}
	for _, l := range c.Mails {
		letters[l.Recipient] = append(letters[l.Recipient], l)
	}
	for _, o := range c.History {
		if o.Kind != signup {
			continue
		}
		mine := letters[o.Email]
		delete(letters, o.Email)
		confirmed := slices.ContainsFunc(mine, func(l letter) bool { return l.Confirmed })
		switch {
		case o.Outcome == ok && !confirmed && !o.Injected:
			c.report(mailOnce, lost, o.Phase, "%s: no mail to %s", o.ID, o.Email)
		case o.Outcome == fail && len(mine) > 0:
			c.report(mailOnce, wrong, o.Phase, "%s: failed, yet there is a mail to %s", o.ID, o.Email)
		}
		c.repeated(o, mine)
	}
	for recipient := range letters {
		c.report(mailOnce, wrong, letters[recipient][0].Phase, "a mail to %s, who never signed up", recipient)
	}
}

// repeated looks for second mails to one recipient.
func (c *checker) repeated(o operation, mine []letter) {
	for n, l := range mine {
		if n == 0 {
			continue
		}
		first := mine[0]
		switch {
		case l.MessageID != first.MessageID:
			c.report(mailOnce, duplicated, o.Phase, "%s: another mail to %s: %s and %s", o.ID, o.Email, first.MessageID, l.MessageID)
		case !mine[n-1].Confirmed || c.Windows[mine[n-1].Phase]:
			c.window = append(c.window, l)
		default:
			c.report(mailOnce, duplicated, o.Phase, "%s: mail %s came again, in %q and %q", o.ID, l.MessageID, mine[n-1].Phase, l.Phase)
		}
	}
}

// sessions is I5: a refresh token has one successor.
func (c *checker) sessions() {
	successors := map[string]string{}
	for _, o := range c.History {
		if o.Kind != refresh || o.Outcome != ok {
			continue
		}
		if other, seen := successors[o.Spent]; seen && other != o.Gained {
			c.report(sessionSafe, duplicated, o.Phase, "%s: token %s has the successors %s and %s", o.ID, o.Spent, other, o.Gained)
		}
		successors[o.Spent] = o.Gained
	}
}

// order is I6: on each stream, what a producer says of a subject first appears
// in the producer's order. Producers that do not number are not checked.
func (c *checker) order() {
	last := map[[3]string]delivery{}
	for _, d := range c.Deliveries {
		if d.Seq == 0 || d.Injected || d.Restored {
			continue
		}
		key := [3]string{d.Stream, d.Producer, d.Subject}
		if before, seen := last[key]; seen && d.Seq < before.Seq {
			c.report(ordering, wrong, calm, "%s: %s has number %d of %s and %s, after %d (%s)",
				d.Stream, d.Event, d.Seq, d.Producer, d.Subject, before.Seq, before.Event)
		}
		if d.Seq > last[key].Seq {
			last[key] = d
		}
	}
}

// letters is I9: nothing is given up but what was meant to be.
func (c *checker) letters() {
	for _, l := range c.DeadLetters {
		if l.Injected || strings.Contains(string(l.Payload), bounce) {
			continue
		}
		c.report(onlyInjected, wrong, l.Phase, "%s-service gave up %s (entry %s of %s): %s", l.Service, l.Type, l.Entry, l.Stream, l.Reason)
	}
}
