package main

import (
	"slices"
	"testing"
	"time"
)

// TestExplain: only a loss that a run has caused itself may be accepted.
func TestExplain(t *testing.T) {
	t.Parallel()
	const lostGap, openEnd, surplus = "auth-service/E:3..9", "auth-service/E:10..", "auth-service/E@2026-11-29T02"
	for name, tc := range map[string]struct {
		losses            losses
		lostGap, openEnds bool
	}{
		"nothing lost":              {losses{}, false, false},
		"the producer was restored": {losses{restored: map[string]bool{"auth": true}, restarted: map[string][]string{"auth": {"a"}}}, false, false},
		"the consumer was restored": {losses{restored: map[string]bool{"audit": true}, restarted: map[string][]string{"audit": {"a"}}, redis: []string{"a"}}, false, false},
		"both were restored":        {losses{restored: map[string]bool{"audit": true, "auth": true}}, true, false},
		"Redis was emptied":         {losses{redis: []string{"a"}}, false, false},
		"Redis was emptied when the producer's Postgres restarted":              {losses{redis: []string{"a"}, restarted: map[string][]string{"auth": {"b", "a"}}}, false, true},
		"Redis was emptied when the producer was restored":                      {losses{redis: []string{"a"}, restored: map[string]bool{"auth": true}, restarted: map[string][]string{"auth": {"a"}}}, true, true},
		"Redis was emptied, and the producer's Postgres restarted another time": {losses{redis: []string{"a"}, restarted: map[string][]string{"auth": {"b"}}}, false, false},
		"Redis was emptied when another Postgres restarted":                     {losses{redis: []string{"a"}, restarted: map[string][]string{"user": {"a"}}}, false, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got := tc.losses.explain(auditService, authService, lostGap); got != tc.lostGap {
				t.Errorf("explain(%s) = %v, want %v", lostGap, got, tc.lostGap)
			}
			if got := tc.losses.explain(auditService, authService, openEnd); got != tc.openEnds {
				t.Errorf("explain(%s) = %v, want %v", openEnd, got, tc.openEnds)
			}
			if got := tc.losses.explain(auditService, authService, surplus); got != (tc.lostGap && tc.openEnds) {
				t.Errorf("explain(%s) = %v", surplus, got)
			}
		})
	}
}

// TestGone: an event is excused only if producer and consumer may both have lost it.
func TestGone(t *testing.T) {
	t.Parallel()
	begin := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	at := func(seconds int) time.Time { return begin.Add(time.Duration(seconds) * time.Second) }
	restored := func(database string, copied, restored int) reversion {
		return reversion{Database: database, Copied: at(copied), Restored: at(restored)}
	}
	event := delivery{Producer: authService, Seen: at(10), OccurredAt: at(3600)}
	for name, tc := range map[string]struct {
		reverts []reversion
		redis   []time.Time
		want    bool
	}{
		"nothing":                {nil, nil, false},
		"the producer":           {[]reversion{restored("auth", 5, 15)}, nil, false},
		"the consumer":           {[]reversion{restored("audit", 5, 15)}, nil, false},
		"both":                   {[]reversion{restored("auth", 5, 15), restored("audit", 0, 30)}, nil, true},
		"the consumer, earlier":  {[]reversion{restored("auth", 5, 15), restored("audit", 0, 8)}, nil, false},
		"the consumer, later":    {[]reversion{restored("auth", 5, 15), restored("audit", 20, 30)}, nil, false},
		"the producer, later":    {[]reversion{restored("auth", 12, 15), restored("audit", 0, 30)}, nil, false},
		"another consumer":       {[]reversion{restored("auth", 5, 15), restored("user", 0, 30)}, nil, false},
		"the producer and Redis": {[]reversion{restored("auth", 5, 15)}, []time.Time{at(12)}, true},
		"Redis at another time":  {[]reversion{restored("auth", 5, 15)}, []time.Time{at(20)}, false},
		"the consumer and Redis": {[]reversion{restored("audit", 5, 15)}, []time.Time{at(12)}, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got := gone(event, auditService, tc.reverts, tc.redis); got != tc.want {
				t.Errorf("gone() = %v, want %v", got, tc.want)
			}
		})
	}
	own := delivery{Producer: auditService, Seen: at(10)}
	if !gone(own, auditService, []reversion{restored("audit", 5, 15)}, nil) {
		t.Error("an event that a consumer published itself is not excused by a restore of its database")
	}
}

// TestLostGap: what gaps prints is understood.
func TestLostGap(t *testing.T) {
	t.Parallel()
	const output = `auth-service/E1:3..9  7 events are missing; the producer does not have it any more
user-service/:4  1 event is missing; the producer does not have it any more
email-service/E2:5..6  2 events are missing
auth-service/E1:10..  the database of the producer was replaced while Redis was empty or older; nobody knows what came next
email-service/E2@2026-11-29T02  surplus: 38 events recorded, 30 published
email-service/E2: the database of the producer was restored: it ends at event 29, but 30 were published
auth-service: compared with its watermark of 2 s ago`
	var found []string
	for _, match := range lostGap.FindAllStringSubmatch(output, -1) {
		found = append(found, match[2]+" "+match[1])
	}
	want := []string{"auth-service auth-service/E1:3..9", "user-service user-service/:4", "auth-service auth-service/E1:10..", "email-service email-service/E2@2026-11-29T02"}
	if !slices.Equal(found, want) {
		t.Errorf("found %q, want %q", found, want)
	}
}
