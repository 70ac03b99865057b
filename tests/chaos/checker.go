package main

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// evidence is everything that a run has observed. docs/RESILIENCE.md explains the
// invariants.
type evidence struct {
	History     []operation
	Audit       []record
	Mails       []receivedMail // in the order of their arrival
	Users       []string       // addresses of the accounts
	Profiles    []string       // addresses in the profiles of user-service
	DeadLetters []deadLetter
	Logins      map[string]string // the error of signing in after an acknowledged sign-up, by address
	Deliveries  []delivery        // in the order of each stream
	Windows     map[string]bool   // phases in which a mail may be sent twice
	Reversions  []reversion
	Verdicts    []sample // what the services said about their completeness
}

// reversion is the restore of a database. Changes that were acknowledged between the copy
// and the end of the restore may be gone, and nothing else.
type reversion struct {
	Database string
	Copied   time.Time // before the copy was made
	Restored time.Time // after the restore
}

// sample is what a consumer said about its completeness at one time.
type sample struct {
	Consumer string
	Phase    string
	Final    bool // after the end of the load, when nothing was left to do
	Complete bool
	Output   string
	// Absent are published events that the consumer lacks although a watermark that it had
	// seen covers them.
	Absent []string
}

// record is a row of the audit log.
type record struct{ Type, Request string }

// deadLetter is a dead letter of a service.
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

// violation is an invariant that was broken.
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
	verdicts     = "I10 verdict"
	mailRecorded = "I11 mail recorded"
	projection   = "I13 projection"
	ownChanges   = "I12 own changes"
)

// check returns every violation, and the mails that were sent twice in the window that SMTP
// cannot close.
func check(e evidence) (found []violation, window []receivedMail) {
	c := checker{evidence: e}
	c.durability()
	c.phantoms()
	c.audit()
	c.mails()
	c.sessions()
	c.order()
	c.deadLetters()
	c.mailRecords()
	c.projections()
	c.profiles()
	c.verdicts()
	return c.found, c.window
}

type checker struct {
	evidence
	found  []violation
	window []receivedMail
}

func (c *checker) report(invariant, effect, phase, format string, values ...any) {
	c.found = append(c.found, violation{invariant, effect, phase, fmt.Sprintf(format, values...)})
}

// reverted says whether a restore of the database may have removed the operation.
func (c *checker) reverted(database string, o operation) bool {
	return slices.ContainsFunc(c.Reversions, func(r reversion) bool { return r.Database == database && r.covers(o) })
}

func (r reversion) covers(o operation) bool {
	return o.End.After(r.Copied) && o.Start.Before(r.Restored)
}

// durability is I1: every acknowledged sign-up can sign in, unless a restore removed it.
func (c *checker) durability() {
	for _, o := range c.History {
		if o.Kind != signup || o.Outcome != ok || c.reverted("auth", o) {
			continue
		}
		if fault, tried := c.Logins[o.Email]; !tried || fault != "" {
			c.report(durability, lost, o.Phase, "%s of %s cannot sign in: %q", o.ID, o.Email, fault)
		}
	}
}

// phantoms is I2 and I7: every account comes from a sign-up that may have succeeded, and
// each address has one account.
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
			c.report(noPhantom, wrong, calm, "account %s: no sign-up with this address", email)
		}
		key := strings.ToLower(email)
		if accounts[key]++; accounts[key] == 2 {
			c.report(uniqueness, duplicated, calm, "two accounts with the address %s", key)
		}
	}
}

// audited returns the audit record of an operation, or nothing if it has none.
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

// databaseOf returns the database that an operation changes.
func databaseOf(kind string) string {
	if kind == patch {
		return "user"
	}
	return "auth"
}

// audit is I3: an acknowledged operation has one record, a failed one has none, and one that
// is unknown or was removed by a restore has none or one.
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
		case n == 0 && o.Outcome == ok && !c.reverted(databaseOf(o.Kind), o):
			c.report(auditOnce, lost, o.Phase, "%s: no %s", o.ID, kind)
		case n > 1:
			c.report(auditOnce, duplicated, o.Phase, "%s: %d times %s", o.ID, n, kind)
		case n == 1 && o.Outcome == fail:
			c.report(auditOnce, wrong, o.Phase, "%s: failed with %d %s, but has a %s", o.ID, o.Status, o.Detail, kind)
		}
	}
}

// mails is I4: an acknowledged sign-up has one mail, by Message-ID and by recipient, a failed
// one has none, and one that is unknown or was removed by a restore has none or one. A
// notification has one mail.
func (c *checker) mails() {
	byRecipient := map[string][]receivedMail{}
	for _, m := range c.Mails {
		byRecipient[m.Recipient] = append(byRecipient[m.Recipient], m)
	}
	for _, o := range c.History {
		if !mailed(o.Kind) {
			continue
		}
		mails := byRecipient[o.Email]
		delete(byRecipient, o.Email)
		confirmed := slices.ContainsFunc(mails, func(m receivedMail) bool { return m.Confirmed })
		switch {
		case o.Outcome == ok && !confirmed && !o.Injected && !c.reverted("auth", o):
			c.report(mailOnce, lost, o.Phase, "%s: no mail to %s", o.ID, o.Email)
		case o.Outcome == fail && len(mails) > 0:
			c.report(mailOnce, wrong, o.Phase, "%s: failed, but a mail was sent to %s", o.ID, o.Email)
		}
		c.repeated(o, mails)
	}
	for recipient := range byRecipient {
		c.report(mailOnce, wrong, byRecipient[recipient][0].Phase, "a mail to %s, an address without a sign-up", recipient)
	}
}

// mailed says whether an operation of this kind leads to a mail.
func mailed(kind string) bool { return kind == signup || kind == notify }

// repeated reports mails after the first one to a recipient.
func (c *checker) repeated(o operation, mails []receivedMail) {
	for n, m := range mails {
		if n == 0 {
			continue
		}
		first := mails[0]
		switch {
		case m.MessageID != first.MessageID:
			c.report(mailOnce, duplicated, o.Phase, "%s: another mail to %s: %s and %s", o.ID, o.Email, first.MessageID, m.MessageID)
		case !mails[n-1].Confirmed || c.Windows[mails[n-1].Phase]:
			c.window = append(c.window, m)
		default:
			c.report(mailOnce, duplicated, o.Phase, "%s: mail %s was received again, in %q and %q", o.ID, m.MessageID, mails[n-1].Phase, m.Phase)
		}
	}
}

// sessions is I5: a refresh token has one successor.
func (c *checker) sessions() {
	successors := map[string]string{}
	for _, o := range c.History {
		if o.Kind != refresh || o.Outcome != ok || c.reverted("auth", o) {
			continue
		}
		if other, seen := successors[o.Spent]; seen && other != o.Gained {
			c.report(sessionSafe, duplicated, o.Phase, "%s: token %s has the successors %s and %s", o.ID, o.Spent, other, o.Gained)
		}
		successors[o.Spent] = o.Gained
	}
}

// order is I6: on each stream, the events of a producer's epoch about one subject first appear
// in the producer's order. Events without a subject or a sequence number have no order.
func (c *checker) order() {
	last := map[[4]string]delivery{}
	for _, d := range c.Deliveries {
		if !d.ordered() {
			continue
		}
		key := [4]string{d.Stream, d.Producer, d.Epoch, d.Subject}
		if before, seen := last[key]; seen && d.Seq < before.Seq {
			c.report(ordering, wrong, calm, "%s: %s has number %d of %s and %s, after %d (%s)",
				d.Stream, d.Event, d.Seq, d.Producer, d.Subject, before.Seq, before.Event)
		}
		if d.Seq > last[key].Seq {
			last[key] = d
		}
	}
}

// deadLetters is I9: only injected faults make dead letters.
func (c *checker) deadLetters() {
	for _, d := range c.DeadLetters {
		if d.Injected || strings.Contains(string(d.Payload), bounce) || strings.Contains(string(d.Payload), later) {
			continue
		}
		c.report(onlyInjected, wrong, d.Phase, "%s-service has a dead letter of %s (entry %s of %s): %s", d.Service, d.Type, d.Entry, d.Stream, d.Reason)
	}
}
