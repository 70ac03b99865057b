package main

import (
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
			{ID: "op-9", Kind: read, Email: "a@example.com", Outcome: ok, Phase: phase},
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
		},
		Mails: []receivedMail{
			{MessageID: "m1", Recipient: "a@example.com", Phase: phase, Confirmed: true},
			{MessageID: "m2", Recipient: "b@example.com", Phase: phase, Confirmed: true},
		},
		Users:  []string{"a@example.com", "b@example.com", bounce + "d@example.com"},
		Logins: map[string]string{"a@example.com": "", bounce + "d@example.com": ""},
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
		"a forked refresh": {func(e *evidence) { e.History[6].Gained = "t3" }, sessionSafe, duplicated},
		"a swapped order":  {func(e *evidence) { e.Deliveries[0], e.Deliveries[2] = e.Deliveries[2], e.Deliveries[0] }, ordering, wrong},
		"a foreign dead letter": {func(e *evidence) {
			e.DeadLetters = append(e.DeadLetters, deadLetter{Service: "user", Stream: "user-events", Entry: "3-0", At: time.Now()})
		}, onlyInjected, wrong},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := good()
			tc.change(&e)
			found, _ := check(e)
			if len(found) != 1 || found[0].Invariant != tc.invariant || found[0].Effect != tc.effect {
				t.Errorf("check() = %v, want one violation of %s: %s", found, tc.invariant, tc.effect)
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
