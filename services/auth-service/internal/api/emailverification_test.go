package api_test

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/headgate/headgate/pkg/event"
)

// SEC-29: verification links.
func TestSEC29VerifyEmail(t *testing.T) {
	t.Parallel()
	s := newService(t)
	ann := s.signup("ann@example.com").Data.Tokens.AccessToken
	link := s.link(event.UserVerificationRequested{}, "ann@example.com", 1)
	for _, added := range []string{"", "&utm_source=mail&utm_term=50%;x"} { // Mail scanners follow links, and trackers add parameters.
		status, header, page := s.do("GET", base+"/verify-email?token="+url.QueryEscape(link)+added, "", "", "")
		if status != 200 || !strings.Contains(string(page), `action="/api/v1/auth/verify-email"`) || !strings.Contains(header.Get("Content-Security-Policy"), "form-action 'self'") {
			t.Fatalf("page = %d %v %s", status, header, page)
		}
	}
	answers := make(chan answer, 20)
	var wg sync.WaitGroup
	for range cap(answers) {
		wg.Go(func() { answers <- s.call("POST", "/verify-email", ann, fields{"token": link}) })
	}
	wg.Wait()
	close(answers)
	count := map[string]int{}
	for a := range answers {
		count[fmt.Sprintf("%d %s", a.status, a.Code)]++
		if a.status == 200 && !a.Data.User.EmailVerified {
			t.Error("the user is not verified")
		}
	}
	if count["200 "] != 1 || count["400 token_invalid"] != 19 {
		t.Errorf("answers = %v", count)
	}
	s.want(s.call("POST", "/verify-email", "", fields{"token": "unknown"}), 400, "token_invalid")
	if status, _, page := s.do("GET", base+"/verify-email?token=a&token=b", "", "", ""); status != 400 || !strings.Contains(string(page), "This link is incomplete") {
		t.Errorf("the page of two tokens = %d %s", status, page)
	}
	want := []string{"user.email_verified", "user.signed_up"}
	for range 3 { // The first of the user, the count of further ones, and the first of a stranger.
		want = append([]string{"request.refused"}, want...)
	}
	if n := s.occurrences(event.RequestRefused{}); n != 20 {
		t.Errorf("%d refusals are recorded, want 20", n)
	}
	got := names(s.events(event.Audit))
	if slices.Sort(got); !slices.Equal(got, want) {
		t.Errorf("audit = %v, want %v", got, want)
	}

	late := s.verifyLink("bob@example.com")
	s.advance(61 * time.Minute)
	s.want(s.call("POST", "/verify-email", "", fields{"token": late}), http.StatusGone, "token_expired")
}

func TestVerifyEmailWithoutScripts(t *testing.T) {
	t.Parallel()
	s := newService(t)
	link := s.verifyLink("ann@example.com")
	for _, want := range []struct {
		token, text string
		status      int
	}{{link, "confirmed", 200}, {link, "no longer valid", 400}, {"", "no longer valid", 400}} {
		status, header, page := s.do("POST", base+"/verify-email", "", "application/x-www-form-urlencoded", url.Values{"token": {want.token}, "password": {goodPassword}}.Encode())
		if status != want.status || !strings.Contains(string(page), want.text) || header.Get("Content-Type") != "text/html; charset=utf-8" {
			t.Errorf("= %d %s, want %d with %q", status, page, want.status, want.text)
		}
	}
	status, _, page := s.do("GET", base+`/verify-email?token="><script>alert(1)</script>`, "", "", "")
	if status != 400 || strings.Contains(string(page), "<script>") {
		t.Errorf("page = %d %s", status, page)
	}
}
