package main

import "slices"

// mailRecords is I11: the mail of an acknowledged sign-up has one audit record, at most one
// if a restore of email-service's database may have removed it.
func (c *checker) mailRecords() {
	recorded := map[string]int{}
	for _, r := range c.Audit {
		if r.Type == "email.sent" {
			recorded[r.Request]++
		}
	}
	sent := map[string]receivedMail{}
	for _, m := range c.Mails {
		if m.Confirmed {
			sent[m.Recipient] = m
		}
	}
	for _, o := range c.History {
		m, confirmed := sent[o.Email]
		if o.Kind != signup || !confirmed {
			continue
		}
		switch n := recorded[o.ID]; {
		case n == 0 && !c.mailReverted(m):
			c.report(mailRecorded, lost, m.Phase, "%s: no email.sent of the mail to %s", o.ID, o.Email)
		case n > 1:
			c.report(mailRecorded, duplicated, m.Phase, "%s: %d times email.sent", o.ID, n)
		}
	}
}

// mailReverted says whether a restore may have removed what email-service knew of a mail.
func (c *checker) mailReverted(m receivedMail) bool {
	return slices.ContainsFunc(c.Reversions, func(r reversion) bool {
		return r.Database == "email" && m.At.After(r.Copied) && m.At.Before(r.Restored)
	})
}

// lossOf is the invariant whose violation is a loss in a consumer.
var lossOf = map[string]string{auditService: auditOnce, emailService: mailOnce, userService: projection}

// verdicts is I10: no consumer says that it is complete while it lacks an event that was
// published, or after it has lost one for good.
func (c *checker) verdicts() {
	for _, s := range c.Verdicts {
		if !s.Complete {
			continue
		}
		if len(s.Absent) > 0 {
			c.report(verdicts, wrong, s.Phase, "%s says that it is complete, but lacks %d events, such as %s", s.Consumer, len(s.Absent), s.Absent[0])
		}
		if s.Final && slices.ContainsFunc(c.found, func(v violation) bool { return v.Invariant == lossOf[s.Consumer] && v.Effect == lost }) {
			c.report(verdicts, wrong, s.Phase, "%s says that it is complete at the end, but has lost events", s.Consumer)
		}
	}
}

// position names the numbers of a producer's outbox on a stream.
type position struct{ Stream, Producer, Epoch string }

// absent returns the events that a watermark covers and that have no record.
func absent(published []delivery, covered map[position]int64, recorded map[string]bool) []string {
	var found []string
	for _, d := range published {
		seq, known := covered[position{d.Stream, d.Producer, d.Epoch}]
		if known && d.Seq > 0 && d.Seq <= seq && !recorded[d.Event] {
			found = append(found, d.Event)
		}
	}
	return found
}
