package api_test

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/headgate/headgate/pkg/event"
)

// SEC-15, SEC-16: rotation, replay and reuse.
func TestSEC15RefreshRotation(t *testing.T) {
	t.Parallel()
	s := newService(t)
	r0 := s.signup("ann@example.com").Data.Tokens.RefreshToken
	s.advance(time.Minute)

	rotated := s.want(s.refresh(r0), 200, "")
	r1 := rotated.Data.Tokens.RefreshToken
	if rotated.header.Get("X-Refresh-Outcome") != "rotated" || r1 == r0 {
		t.Fatalf("outcome = %q", rotated.header.Get("X-Refresh-Outcome"))
	}
	s.advance(9 * time.Second)
	replayed := s.want(s.refresh(r0), 200, "")
	if replayed.header.Get("X-Refresh-Outcome") != "replayed" || replayed.Data.Tokens.RefreshToken != r1 {
		t.Errorf("within the grace: outcome %q, the same successor: %t", replayed.header.Get("X-Refresh-Outcome"), replayed.Data.Tokens.RefreshToken == r1)
	}
	r2 := s.want(s.refresh(r1), 200, "").Data.Tokens.RefreshToken
	s.want(s.refresh(r0), 401, "refresh_token_reused") // two generations old, though within 10 s
	s.want(s.refresh(r2), 401, "session_revoked")
	s.want(s.refresh(r0), 401, "session_revoked") // the grace does not revive a session

	got := names(s.events(event.Audit))
	want := []string{"user.signed_up", "session.refreshed", "session.refreshed", "session.refreshed", "session.refresh_reused", "session.revoked", "request.refused"} // The second refusal is counted.
	if !slices.Equal(got, want) {
		t.Errorf("audit = %v, want %v", got, want)
	}
	if mails := names(s.events(event.Email)); !slices.Contains(mails, "session.refresh_reused") {
		t.Errorf("no mail to the owner: %v", mails)
	}
}

func TestSEC15RefreshAfterTheGrace(t *testing.T) {
	t.Parallel()
	s := newService(t)
	r0 := s.signup("ann@example.com").Data.Tokens.RefreshToken
	r1 := s.want(s.refresh(r0), 200, "").Data.Tokens.RefreshToken
	s.advance(11 * time.Second)
	s.want(s.refresh(r0), 401, "refresh_token_reused")
	s.want(s.refresh(r1), 401, "session_revoked")
}

// SEC-16: parallel refreshes rotate once and all get the same successor.
func TestSEC16ParallelRefreshes(t *testing.T) {
	t.Parallel()
	s := newService(t)
	r0 := s.signup("ann@example.com").Data.Tokens.RefreshToken
	answers := make(chan answer, 20)
	var wg sync.WaitGroup
	for range cap(answers) {
		wg.Go(func() { answers <- s.refresh(r0) })
	}
	wg.Wait()
	close(answers)
	outcomes, successors := map[string]int{}, map[string]bool{}
	for a := range answers {
		outcomes[fmt.Sprint(a.status, a.header.Get("X-Refresh-Outcome"))]++
		successors[a.Data.Tokens.RefreshToken] = true
	}
	if outcomes["200rotated"]+outcomes["200 rotated"] != 1 || len(successors) != 1 {
		t.Errorf("outcomes = %v, %d successors", outcomes, len(successors))
	}
	for successor := range successors {
		s.want(s.refresh(successor), 200, "")
	}
}

func TestSEC05RefreshRefusesInvalidTokens(t *testing.T) {
	t.Parallel()
	s := newService(t)
	a := s.signup("ann@example.com")
	refreshToken := a.Data.Tokens.RefreshToken
	for name, raw := range map[string]string{
		"junk":                   "junk",
		"SEC-05 an access token": a.Data.Tokens.AccessToken,
		"changed":                refreshToken[:len(refreshToken)-2] + "xx",
		"long":                   strings.Repeat("a", 4<<10),
	} {
		if got := s.refresh(raw); got.status != 401 || got.Code != "refresh_token_invalid" {
			t.Errorf("%s = %d %s", name, got.status, got.Code)
		}
	}
	s.want(s.refresh(""), 400, "validation_failed")
	if got := s.call("GET", "/sessions", refreshToken, nil); got.status != 401 {
		t.Errorf("SEC-05: a refresh token as bearer token = %d", got.status)
	}
	s.advance(25 * time.Hour)
	s.want(s.refresh(refreshToken), 401, "refresh_token_expired")
}

// SEC-12: a session ends even if it is refreshed.
func TestSEC12SessionsEnd(t *testing.T) {
	t.Parallel()
	s := newService(t)
	refreshToken := s.signup("ann@example.com").Data.Tokens.RefreshToken
	for range 3 {
		s.advance(23 * time.Hour)
		refreshToken = s.want(s.refresh(refreshToken), 200, "").Data.Tokens.RefreshToken
	}
	s.advance(4 * time.Hour)
	s.want(s.refresh(refreshToken), 401, "refresh_token_expired")
}
