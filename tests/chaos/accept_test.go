package main

import (
	"slices"
	"testing"
)

// TestExplain: only a loss that a run has caused itself may be accepted.
func TestExplain(t *testing.T) {
	t.Parallel()
	const lostGap, openEnd = "auth-service/E:3..9", "auth-service/E:10.."
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
		})
	}
}

// TestLostGap: what gaps prints is understood.
func TestLostGap(t *testing.T) {
	t.Parallel()
	const output = `auth-service/E1:3..9  7 events are missing; the producer does not have it any more
user-service/:4  1 event is missing; the producer does not have it any more
email-service/E2:5..6  2 events are missing
auth-service/E1:10..  the database of the producer was replaced while Redis was empty or older; nobody knows what came next
auth-service: compared with its watermark of 2 s ago`
	var found []string
	for _, match := range lostGap.FindAllStringSubmatch(output, -1) {
		found = append(found, match[2]+" "+match[1])
	}
	want := []string{"auth-service auth-service/E1:3..9", "user-service user-service/:4", "auth-service auth-service/E1:10.."}
	if !slices.Equal(found, want) {
		t.Errorf("found %q, want %q", found, want)
	}
}
