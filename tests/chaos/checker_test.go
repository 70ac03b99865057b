package main

import (
	"maps"
	"slices"
	"testing"
	"time"
)

// good returns the evidence of a small run without violations.
func good() evidence {
	const phase, stream = "Redis killed", "audit-events"
	return evidence{
		History: []operation{
			{ID: "op-1", Kind: signup, Email: "a@example.com", Outcome: ok, Phase: phase},
			{ID: "op-2", Kind: signup, Email: "b@example.com", Outcome: unknown, Phase: phase},
			{ID: "op-3", Kind: signup, Email: "c@example.com", Outcome: fail, Phase: phase},
			{ID: "op-4", Kind: signup, Email: bounce + "d@example.com", Outcome: ok, Phase: phase, Injected: true},
			{ID: "op-5", Kind: login, Email: "a@example.com", Outcome: ok, Phase: phase},
			{ID: "op-6", Kind: refresh, Email: "a@example.com", Outcome: ok, Phase: phase, Spent: "t1", Gained: "t2"},
			{ID: "op-7", Kind: refresh, Email: "a@example.com", Outcome: ok, Phase: phase, Spent: "t1", Gained: "t2"},
			{ID: "op-8", Kind: patch, Email: "a@example.com", Outcome: ok, Phase: phase},
			{ID: "op-9", Kind: read, Email: "a@example.com", Outcome: ok, Phase: phase, Bio: "op-8"},
		},
		Audit: []record{
			{"user.signed_up", "op-1"},
			{"user.signed_up", "op-2"},
			{"user.signed_up", "op-4"},
			{"user.logged_in", "op-5"},
			{"session.refreshed", "op-6"},
			{"session.refreshed", "op-7"},
			{"user.profile_updated", "op-8"},
			{"email.sent", "op-1"},
			{"email.sent", "op-2"},
		},
		Mails: []receivedMail{
			{MessageID: "m1", Recipient: "a@example.com", Phase: phase, Confirmed: true},
			{MessageID: "m2", Recipient: "b@example.com", Phase: phase, Confirmed: true},
		},
		Users:    []string{"a@example.com", "b@example.com", bounce + "d@example.com"},
		Profiles: []string{"a@example.com", bounce + "d@example.com"},
		Logins:   map[string]string{"a@example.com": "", bounce + "d@example.com": ""},
		DeadLetters: []deadLetter{
			{Service: "audit", Stream: stream, Entry: "1-0", Injected: true, Phase: phase},
			{Service: "email", Stream: "email-events", Entry: "2-0", Payload: []byte(`{"email":"` + bounce + `d@example.com"}`), Phase: phase},
		},
		Deliveries: []delivery{
			{Stream: stream, Entry: "1-1", Event: "e1", Producer: "auth-service", Subject: "s", Seq: 1},
			{Stream: stream, Entry: "1-2", Event: "e3", Producer: "user-service", Subject: "s", Seq: 7},
			{Stream: stream, Entry: "1-3", Event: "e2", Producer: "auth-service", Subject: "s", Seq: 2},
		},
		Windows: map[string]bool{"mail server down": true},
		Verdicts: []sample{
			{Consumer: auditService, Phase: phase, Absent: []string{"e1"}},
			{Consumer: auditService, Phase: phase, Complete: true},
			{Consumer: auditService, Phase: phase, Complete: true, Final: true},
			{Consumer: emailService, Phase: phase, Complete: true, Final: true},
			{Consumer: userService, Phase: phase, Complete: true, Final: true},
		},
	}
}

func TestGoodEvidencePasses(t *testing.T) {
	t.Parallel()
	if found, window := check(good()); len(found) > 0 || len(window) > 0 {
		t.Errorf("check() = %v, %v, want nothing", found, window)
	}
}

func TestEachViolationIsFound(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		change            func(*evidence)
		invariant, effect string
	}{
		"an acknowledged user cannot sign in": {func(e *evidence) { e.Logins["a@example.com"] = "401 invalid_credentials" }, durability, lost},
		"no attempt to sign in":               {func(e *evidence) { delete(e.Logins, "a@example.com") }, durability, lost},
		"a phantom user":                      {func(e *evidence) { e.Users = append(e.Users, "x@example.com") }, noPhantom, wrong},
		"a user whose sign-up failed":         {func(e *evidence) { e.Users = append(e.Users, "c@example.com") }, noPhantom, wrong},
		"two users of one address":            {func(e *evidence) { e.Users = append(e.Users, "a@example.com") }, uniqueness, duplicated},
		"a lost record of a sign-up":          {func(e *evidence) { e.Audit = e.Audit[1:] }, auditOnce, lost},
		"a lost record of a refresh":          {func(e *evidence) { e.Audit = slices.Delete(e.Audit, 5, 6) }, auditOnce, lost},
		"a record twice":                      {func(e *evidence) { e.Audit = append(e.Audit, e.Audit[0]) }, auditOnce, duplicated},
		"an unknown sign-up recorded twice":   {func(e *evidence) { e.Audit = append(e.Audit, e.Audit[1]) }, auditOnce, duplicated},
		"a record of what failed":             {func(e *evidence) { e.Audit = append(e.Audit, record{"user.signed_up", "op-3"}) }, auditOnce, wrong},
		"a lost mail":                         {func(e *evidence) { e.Mails = e.Mails[1:] }, mailOnce, lost},
		"an unconfirmed mail":                 {func(e *evidence) { e.Mails[0].Confirmed = false }, mailOnce, lost},
		"a mail twice":                        {func(e *evidence) { e.Mails = append(e.Mails, e.Mails[0]) }, mailOnce, duplicated},
		"two mails to one recipient": {func(e *evidence) {
			e.Mails = append(e.Mails, receivedMail{MessageID: "m3", Recipient: "a@example.com", Confirmed: true})
		}, mailOnce, duplicated},
		"a mail to a stranger": {func(e *evidence) {
			e.Mails = append(e.Mails, receivedMail{MessageID: "m3", Recipient: "x@example.com", Confirmed: true})
		}, mailOnce, wrong},
		"a forked refresh":                  {func(e *evidence) { e.History[6].Gained = "t3" }, sessionSafe, duplicated},
		"a swapped order":                   {func(e *evidence) { e.Deliveries[0], e.Deliveries[2] = e.Deliveries[2], e.Deliveries[0] }, ordering, wrong},
		"a verdict that hides a lost event": {func(e *evidence) { e.Verdicts[1].Absent = []string{"e1"} }, verdicts, wrong},
		"a mail without a record":           {func(e *evidence) { e.Audit = slices.Delete(e.Audit, 7, 8) }, mailRecorded, lost},
		"a record of a mail twice":          {func(e *evidence) { e.Audit = append(e.Audit, e.Audit[7]) }, mailRecorded, duplicated},
		"a hidden change of a profile":      {func(e *evidence) { e.History[8].Bio = "" }, ownChanges, wrong},
		"a user without a profile":          {func(e *evidence) { e.Profiles = e.Profiles[1:] }, projection, lost},
		"a profile without a sign-up":       {func(e *evidence) { e.Profiles = append(e.Profiles, "x@example.com") }, projection, wrong},
		"two profiles of a user":            {func(e *evidence) { e.Profiles = append(e.Profiles, "a@example.com") }, projection, duplicated},
		"a notification that was not sent": {func(e *evidence) {
			e.History = append(e.History, operation{ID: "op-10", Kind: notify, Email: later + "e@example.com", Outcome: ok})
		}, mailOnce, lost},
		"a notification sent twice": {func(e *evidence) {
			e.History = append(e.History, operation{ID: "op-10", Kind: notify, Email: later + "e@example.com", Outcome: ok})
			m := receivedMail{MessageID: "m4", Recipient: later + "e@example.com", Confirmed: true}
			e.Mails = append(e.Mails, m, m)
		}, mailOnce, duplicated},
		"a foreign dead letter": {func(e *evidence) {
			e.DeadLetters = append(e.DeadLetters, deadLetter{Service: "user", Stream: "user-events", Entry: "3-0", At: time.Now()})
		}, onlyInjected, wrong},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := good()
			e.Verdicts = e.Verdicts[:2] // The final ones have a test of their own.
			tc.change(&e)
			found, _ := check(e)
			if len(found) != 1 || found[0].Invariant != tc.invariant || found[0].Effect != tc.effect {
				t.Errorf("check() = %v, want one violation of %s: %s", found, tc.invariant, tc.effect)
			}
		})
	}
}

// TestFalseVerdictAtTheEnd: a consumer that has lost an acknowledged event for good must not
// say at the end that it is complete.
func TestFalseVerdictAtTheEnd(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		lose     func(*evidence)
		consumer int // the place of its final verdict
	}{
		"audit-service": {func(e *evidence) { e.Audit = e.Audit[1:] }, 2},
		"email-service": {func(e *evidence) { e.Mails = e.Mails[1:] }, 3},
		"user-service":  {func(e *evidence) { e.Profiles = e.Profiles[1:] }, 4},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, complete := range []bool{true, false} {
				e := good()
				tc.lose(&e)
				e.Verdicts[tc.consumer].Complete = complete
				found, _ := check(e)
				says := slices.ContainsFunc(found, func(v violation) bool { return v.Invariant == verdicts })
				if says != complete {
					t.Errorf("check() with the verdict complete = %t: %v, want a false verdict: %t", complete, found, complete)
				}
			}
		})
	}
}

// reverting returns good evidence in which a restore of a database may have removed its
// first operations, but not the last.
func reverting(database string) evidence {
	e := good()
	start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for i := range e.History {
		e.History[i].Start = start.Add(time.Duration(i) * time.Second)
		e.History[i].End = e.History[i].Start.Add(100 * time.Millisecond)
	}
	for i := range e.Mails {
		e.Mails[i].At = e.History[i].End
	}
	e.Reversions = []reversion{{Database: database, Copied: start.Add(-time.Second), Restored: start.Add(7500 * time.Millisecond)}}
	return e
}

// TestRestoredDatabase: a restore excuses the loss of what was acknowledged between the copy
// and the restore in that database, and nothing else.
func TestRestoredDatabase(t *testing.T) {
	t.Parallel()
	signIn := func(e *evidence) { e.Logins["a@example.com"] = "401 invalid_credentials" }
	record := func(e *evidence) { e.Audit = e.Audit[1:] }
	twice := func(e *evidence) { e.Audit = append(e.Audit, e.Audit[0]) }
	mail := func(e *evidence) { e.Mails, e.Audit = e.Mails[1:], slices.Delete(e.Audit, 7, 8) }
	mailTwice := func(e *evidence) { e.Mails = append(e.Mails, e.Mails[0]) }
	profile := func(e *evidence) { e.Audit = slices.Delete(e.Audit, 6, 7) }
	mailRecord := func(e *evidence) { e.Audit = slices.Delete(e.Audit, 7, 8) }
	unprojected := func(e *evidence) { e.Profiles = e.Profiles[1:] }
	hidden := func(e *evidence) { e.History[8].Bio = "" }
	fork := func(e *evidence) { e.History[6].Gained = "t3" }
	later := func(change func(*evidence)) func(*evidence) {
		return func(e *evidence) {
			change(e)
			e.Reversions[0].Restored = e.Reversions[0].Copied
		}
	}
	for name, tc := range map[string]struct {
		database string
		change   func(*evidence)
		want     string // the invariant; empty if it is excused
	}{
		"a sign-up":                      {"auth", signIn, ""},
		"a record":                       {"auth", record, ""},
		"a mail":                         {"auth", mail, ""},
		"two successors of a token":      {"auth", fork, ""},
		"a record twice":                 {"auth", twice, auditOnce},
		"a mail twice":                   {"auth", mailTwice, mailOnce},
		"a profile of another database":  {"auth", func(e *evidence) { e.Reversions[0].Restored = e.Reversions[0].Restored.Add(time.Hour); profile(e) }, auditOnce},
		"a sign-up after the restore":    {"auth", later(signIn), durability},
		"a record after the restore":     {"auth", later(record), auditOnce},
		"a mail after the restore":       {"auth", later(mail), mailOnce},
		"a fork after the restore":       {"auth", later(fork), sessionSafe},
		"a profile":                      {"user", profile, ""},
		"a change of a profile":          {"user", hidden, ""},
		"a change after the restore":     {"user", later(hidden), ownChanges},
		"a change in another database":   {"audit", hidden, ownChanges},
		"a record of another database":   {"user", record, auditOnce},
		"a record of the audit database": {"audit", record, auditOnce},
		"the record of a mail":           {"email", mailRecord, ""},
		"the profile of a lost sign-up":  {"auth", unprojected, ""},
		"the profile of a later sign-up": {"auth", later(unprojected), projection},
		"the profile of a sign-up":       {"user", unprojected, projection},
		"an old mail sent again":         {"email", mailTwice, mailOnce},
		"a mail of another database":     {"email", mail, mailOnce},
		"the record of a later mail":     {"email", later(mailRecord), mailRecorded},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := reverting(tc.database)
			if tc.database == "user" {
				e.Reversions[0].Restored = e.Reversions[0].Restored.Add(time.Hour)
			}
			e.Verdicts = nil
			tc.change(&e)
			found, _ := check(e)
			switch {
			case tc.want == "" && len(found) > 0:
				t.Errorf("check() = %v, want nothing", found)
			case tc.want != "" && (len(found) != 1 || found[0].Invariant != tc.want):
				t.Errorf("check() = %v, want one violation of %s", found, tc.want)
			}
		})
	}
}

// TestUnknownChange: a change whose outcome is unknown may be seen at any later time, or never,
// until a change that began after it had certainly ended was acknowledged. A user who has seen
// it sees nothing older.
func TestUnknownChange(t *testing.T) {
	t.Parallel()
	begin := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	at := func(o operation, after time.Duration) operation {
		o.Email, o.Start, o.End = "a@example.com", begin.Add(after), begin.Add(after+time.Millisecond)
		return o
	}
	const late = clientTimeout + time.Second
	first := at(operation{ID: "p1", Kind: patch, Outcome: ok}, 0)
	doubtful := at(operation{ID: "p2", Kind: patch, Outcome: unknown}, 1)
	soon, next := at(operation{ID: "p3", Kind: patch, Outcome: ok}, 2), at(operation{ID: "p3", Kind: patch, Outcome: ok}, late)
	sees := func(bio string, after time.Duration) operation {
		return at(operation{Kind: read, Outcome: ok, Bio: bio}, after)
	}
	for name, tc := range map[string]struct {
		history []operation
		valid   bool
	}{
		"made":      {[]operation{first, doubtful, sees("p2", 5)}, true},
		"not made":  {[]operation{first, doubtful, sees("p1", 5)}, true},
		"made late": {[]operation{first, doubtful, sees("p1", 5), sees("p2", late)}, true},
		"neither":   {[]operation{first, doubtful, sees("", 5)}, false},
		"undone":    {[]operation{first, doubtful, sees("p2", 5), sees("p1", 6)}, false},
		"after a change that may have been first": {[]operation{first, doubtful, soon, sees("p2", 5)}, true},
		"after a later change":                    {[]operation{first, doubtful, next, sees("p2", 2*late)}, false},
		"the later change":                        {[]operation{first, doubtful, next, sees("p3", 2*late)}, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			found, _ := check(evidence{History: tc.history, Audit: []record{{"user.profile_updated", "p1"}, {"user.profile_updated", "p3"}}})
			if (len(found) == 0) != tc.valid {
				t.Errorf("check() = %v, want a violation: %t", found, !tc.valid)
			}
		})
	}
}

// TestAbsent: an event is missing if a watermark covers its number in its epoch and there is
// no record of it. An event in flight is not missing.
func TestAbsent(t *testing.T) {
	t.Parallel()
	first := position{"audit-events", "auth-service", "e1"}
	second := position{"audit-events", "auth-service", "e2"}
	at := func(p position, seq int64, id string) delivery {
		return delivery{Stream: p.Stream, Producer: p.Producer, Epoch: p.Epoch, Seq: seq, Event: id}
	}
	published := []delivery{at(first, 1, "a"), at(first, 2, "b"), at(second, 2, "c"), at(second, 3, "d")}
	all := map[string]bool{"a": true, "b": true, "c": true, "d": true}
	for name, tc := range map[string]struct {
		covered map[position]int64
		missing string
		want    []string
	}{
		"nothing":                          {map[position]int64{first: 2, second: 3}, "", nil},
		"covered":                          {map[position]int64{first: 2, second: 3}, "b", []string{"b"}},
		"above the watermark":              {map[position]int64{first: 1, second: 3}, "b", nil},
		"without a watermark":              {map[position]int64{second: 3}, "b", nil},
		"a number that another epoch used": {map[position]int64{first: 2, second: 3}, "c", []string{"c"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			recorded := maps.Clone(all)
			delete(recorded, tc.missing)
			if got := absent(published, tc.covered, recorded); !slices.Equal(got, tc.want) {
				t.Errorf("absent() = %v, want %v", got, tc.want)
			}
		})
	}
}

// TestWindow: a mail that was sent twice in the window of SMTP is counted, but is not a
// violation.
func TestWindow(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*evidence){
		"the sender died":     func(e *evidence) { e.Mails[0].Phase = "mail server down" },
		"the answer was lost": func(e *evidence) { e.Mails[0].Confirmed = false },
		"both":                func(e *evidence) { e.Mails[0].Confirmed, e.Mails[0].Phase = false, "mail server down" },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := good()
			change(&e)
			again := e.Mails[0]
			again.Confirmed = true
			e.Mails = append(e.Mails, again)
			if found, window := check(e); len(found) > 0 || len(window) != 1 {
				t.Errorf("check() = %v, %v, want one mail in the window", found, window)
			}
		})
	}
}

// TestEachEpochHasItsOrder: the numbers of another epoch may begin again.
func TestEachEpochHasItsOrder(t *testing.T) {
	t.Parallel()
	e := good()
	e.Deliveries[0].Seq = 9
	if found, _ := check(e); len(found) != 1 || found[0].Invariant != ordering {
		t.Errorf("check() = %v, want one violation of the order", found)
	}
	e.Deliveries[2].Epoch = "another"
	if found, _ := check(e); len(found) > 0 {
		t.Errorf("check() = %v, want nothing", found)
	}
}

// TestNoOrderWithoutSubject: relays publish events without a subject side by side.
func TestNoOrderWithoutSubject(t *testing.T) {
	t.Parallel()
	e := good()
	e.Deliveries[0].Seq = 9
	e.Deliveries[0].Subject, e.Deliveries[2].Subject = "", ""
	if found, _ := check(e); len(found) > 0 {
		t.Errorf("check() = %v, want nothing", found)
	}
}

// TestRepublishedEventsHaveNoOrder: events that were published again may have any order.
func TestRepublishedEventsHaveNoOrder(t *testing.T) {
	t.Parallel()
	e := good()
	e.Deliveries[0], e.Deliveries[2] = e.Deliveries[2], e.Deliveries[0]
	e.Deliveries[2].Restored = true
	if found, _ := check(e); len(found) > 0 {
		t.Errorf("check() = %v, want nothing", found)
	}
}
