package api_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/services/auth-service/internal/account"
)

// guessed has strangers guess the password of an address until it is not accepted from
// unknown networks.
func (s *service) guessed(email string) {
	s.t.Helper()
	for i := range 12 {
		s.want(s.at(fmt.Sprintf("198.51.%d.1", i)).try(email, "guess"), 401, "invalid_credentials")
		s.advance(15 * time.Minute)
	}
	s.want(s.at("203.0.113.7").try(email, goodPassword), 403, "password_reset_required")
}

func guessable(cfg *account.Config) {
	limited(account.Limits{ConsecutiveFailures: 12})(cfg)
	cfg.Lifetimes.Verification = 24 * time.Hour
}

// SEC-100: the owner of an address that strangers have guessed passwords for can go on from
// every mailed link, in a network that the account does not know.
func TestSEC100PagesHelpTheOwnerOfAGuessedAddress(t *testing.T) {
	t.Parallel()
	s := newService(t, guessable)
	const takeOver = `action="` + base + `/verify-email/take-over"`
	home := s.at("192.0.2.1")
	link := home.verifyLink("ann@example.com")
	s.guessed("ann@example.com")
	away := s.at("203.0.113.7")
	page := away.press("/verify-email", link, "password", goodPassword).form(403, "Too many failed sign-in attempts", "<details open>", takeOver)
	page.not(`action="`+base+`/verify-email"`, "Open the link in the email again")
	away.press("/verify-email/take-over", link, "password", otherPassword).message(200, "Your address is confirmed")
	s.want(away.try("ann@example.com", otherPassword), 200, "")

	bob := home.verified("bob@example.com").Data.Tokens
	s.want(home.call("POST", "/change-email", bob.AccessToken, fields{"newEmail": "new@example.com", "currentPassword": goodPassword}), 202, "")
	confirm := s.link(event.UserEmailChangeLinkIssued{}, "new@example.com", 1)
	s.guessed("bob@example.com")
	away = s.at("203.0.113.8")
	away.press("/change-email/confirm", confirm).form(403, "Enter the password")
	away.press("/change-email/confirm", confirm, "password", goodPassword).message(403, "Too many failed sign-in attempts", "Forgot password")
}

// Where the link is enough, the password that blocked it can be left out.
func TestSEC100PagesWithoutPasswordsOfAGuessedAddress(t *testing.T) {
	t.Parallel()
	s := newService(t, guessable, func(cfg *account.Config) { cfg.Verification = account.VerifyByLink })
	link := s.at("192.0.2.1").verifyLink("ann@example.com")
	s.guessed("ann@example.com")
	away := s.at("203.0.113.7")
	away.press("/verify-email", link, "password", goodPassword).form(403, "without a password", `action="`+base+`/verify-email"`, "<details open>")
	away.press("/verify-email", link).message(200, "confirmed")
}

// The field with the error has the focus.
func TestPagesFocusTheFieldWithTheError(t *testing.T) {
	t.Parallel()
	s := newService(t)
	link := s.verifyLink("ann@example.com")
	focus := func(p landed) string {
		var ids []string
		for input := range strings.SplitSeq(p.body, "<input id=\"") {
			name, attributes, _ := strings.Cut(input, "\"")
			if attributes, _, _ = strings.Cut(attributes, ">"); strings.Contains(attributes, " autofocus") {
				ids = append(ids, name)
			}
		}
		return strings.Join(ids, " ")
	}
	for want, p := range map[string]landed{
		"password":     s.press("/verify-email", link, "password", "wrong password").form(401),
		"new-password": s.press("/verify-email/take-over", link, "password", "short").form(400),
	} {
		if got := focus(p); got != want {
			t.Errorf("%s: the focus is on %q, want %q\n%s", p.what, got, want, p.body)
		}
	}
	if got := focus(s.open("/verify-email", link)); got != "password" {
		t.Errorf("a new page has the focus on %q", got)
	}
}
