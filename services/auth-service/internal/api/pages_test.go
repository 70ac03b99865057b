package api_test

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/pkg/testkit"
	"github.com/headgate/headgate/pkg/web"
	"github.com/headgate/headgate/services/auth-service/internal/account"
	"github.com/headgate/headgate/services/auth-service/internal/api"
)

// TestLandingPages uses the forms as a browser without scripts does.
func TestLandingPages(t *testing.T) {
	t.Parallel()
	s := newService(t)
	ann := s.signup("ann@example.com").Data.Tokens
	s.forgot("ann@example.com")
	link := s.link(event.UserResetLinkIssued{}, "ann@example.com", 1)
	s.want(s.call("POST", "/change-email", ann.AccessToken, fields{"newEmail": "new@example.com", "currentPassword": goodPassword}), 202, "")
	confirm := s.link(event.UserEmailChangeLinkIssued{}, "new@example.com", 1)
	for path, secret := range map[string]string{"/reset-password": link, "/change-email/confirm": confirm} {
		for range 2 { // GET consumes nothing.
			status, header, page := s.do("GET", base+path+"?token="+url.QueryEscape(secret), "", "", "")
			if status != 200 || !strings.Contains(string(page), `action="`+base+path+`"`) || !strings.Contains(header.Get("Content-Security-Policy"), "default-src 'none'") {
				t.Fatalf("GET %s = %d %v %s", path, status, header, page)
			}
		}
		if status, _, _ := s.do("GET", base+path, "", "", ""); status != 400 {
			t.Errorf("GET %s without a token = %d", path, status)
		}
	}
	form := func(path string, values url.Values) (int, string) {
		status, _, page := s.do("POST", base+path, "", "application/x-www-form-urlencoded", values.Encode())
		return status, string(page)
	}
	// What is wrong is shown, and the form again.
	if status, page := form("/reset-password", url.Values{"token": {link}, "password": {"short"}}); status != 400 || !strings.Contains(page, "at least 8 characters") || !strings.Contains(page, link) {
		t.Errorf("a short password = %d %s", status, page)
	}
	if status, page := form("/reset-password", url.Values{"token": {link}, "password": {otherPassword}}); status != 200 || !strings.Contains(page, "Password changed") {
		t.Errorf("reset = %d %s", status, page)
	}
	if status, page := form("/reset-password", url.Values{"token": {link}, "password": {otherPassword}}); status != 400 || !strings.Contains(page, "no longer valid") {
		t.Errorf("reset again = %d %s", status, page)
	}
	// The reset made the change of the address void.
	if status, _ := form("/change-email/confirm", url.Values{"token": {confirm}}); status != 400 {
		t.Errorf("confirm after a reset = %d", status)
	}
}

// landed is a page as a browser got it.
type landed struct {
	t      *testing.T
	what   string
	status int
	header http.Header
	body   string
}

// open follows a link to a landing page.
func (s *service) open(path, secret string) landed {
	s.t.Helper()
	return s.browse("GET", path+"?token="+url.QueryEscape(secret), "", "")
}

// press sends the form of a landing page.
func (s *service) press(path, secret string, more ...string) landed {
	s.t.Helper()
	form := url.Values{"token": {secret}}
	for i := 0; i < len(more); i += 2 {
		form.Set(more[i], more[i+1])
	}
	return s.browse("POST", path, "application/x-www-form-urlencoded", form.Encode())
}

// browse wants every answer to be a page that can do no more than it should.
func (s *service) browse(method, path, contentType, body string) landed {
	s.t.Helper()
	status, header, data := s.do(method, base+path, "", contentType, body)
	p := landed{s.t, method + " " + path, status, header, string(data)}
	if got := header.Get("Content-Type"); got != "text/html; charset=utf-8" || header.Get("Cache-Control") != "no-store" {
		s.t.Errorf("%s = %d %s %v\n%s", p.what, status, got, header, data)
	}
	_, css, _ := strings.Cut(p.body, "<style>")
	css, _, _ = strings.Cut(css, "</style>")
	sum := sha256.Sum256([]byte(css))
	policy := "default-src 'none'; style-src 'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
	if got := header.Get("Content-Security-Policy"); got != policy || strings.Contains(p.body, "<script") || strings.Contains(p.body, "style=") {
		s.t.Errorf("%s: policy %q, want %q\n%s", p.what, got, policy, data)
	}
	if !strings.Contains(p.body, "· Headgate</title>") || !strings.Contains(p.body, "</span>Headgate</div>") {
		s.t.Errorf("%s: no name of the product:\n%s", p.what, data)
	}
	return p
}

// form wants a form with what is given.
func (p landed) form(status int, texts ...string) landed {
	p.t.Helper()
	return p.want(status, true, texts...)
}

// told wants a page without a form.
func (p landed) told(status int, texts ...string) landed {
	p.t.Helper()
	return p.want(status, false, texts...)
}

func (p landed) want(status int, form bool, texts ...string) landed {
	p.t.Helper()
	if p.status != status || strings.Contains(p.body, "<form") != form || strings.Contains(p.body, "<input") && !form {
		p.t.Fatalf("%s = %d, want %d, with a form: %t\n%s", p.what, p.status, status, form, p.body)
	}
	for _, text := range texts {
		if !strings.Contains(p.body, text) {
			p.t.Errorf("%s has no %q:\n%s", p.what, text, p.body)
		}
	}
	return p
}

// not wants some texts not to be there.
func (p landed) not(texts ...string) landed {
	p.t.Helper()
	for _, text := range texts {
		if strings.Contains(p.body, text) {
			p.t.Errorf("%s has %q:\n%s", p.what, text, p.body)
		}
	}
	return p
}

// app is the same service where the application is at a URL.
func (s *service) app(appURL string) *service {
	s.t.Helper()
	server := httptest.NewServer(web.NewRouter(api.Routes(s.accounts, s.keyring, api.Site{AppURL: appURL}), web.Options{
		Log: testkit.Log(s.t), Metrics: prometheus.NewRegistry(),
	}))
	s.t.Cleanup(server.Close)
	return &service{Server: server, t: s.t, db: s.db, sealer: s.sealer, accounts: s.accounts, keyring: s.keyring}
}

const (
	dead    = "This link is no longer valid"
	expired = "This link has expired"
	allWell = "you are all set"
)

// A page looks at its link before it asks for anything, and consumes nothing.
func TestLandingLooksAtTheLink(t *testing.T) {
	t.Parallel()
	s := newService(t)
	first := s.verifyLink("ann@example.com")
	s.want(s.call("POST", "/resend-verification", "", fields{"email": "ann@example.com"}), 202, "")
	verify := s.link(event.UserVerificationRequested{}, "ann@example.com", 2)
	s.open("/verify-email", first).told(400, dead)
	s.open("/verify-email", "unknown").told(400, dead)
	s.open("/verify-email", strings.Repeat("a", 300)).told(400, "incomplete")
	s.open("/reset-password", verify).told(400, dead) // It is for one purpose.
	for range 3 {
		s.open("/verify-email", verify).form(200, "a***@example.com").not("ann@example.com", `name="password"`)
	}
	s.press("/verify-email", verify).told(200, "confirmed")
	s.open("/verify-email", verify).told(400, dead, allWell)
	s.press("/verify-email", verify).told(400, dead, allWell)

	s.forgot("ann@example.com")
	old := s.link(event.UserResetLinkIssued{}, "ann@example.com", 1)
	s.forgot("ann@example.com")
	reset := s.link(event.UserResetLinkIssued{}, "ann@example.com", 2)
	s.open("/reset-password", old).told(400, dead).not(allWell)
	s.open("/reset-password", reset).form(200, "a***@example.com")
	s.press("/reset-password", old, "password", "short").told(400, dead) // No form that cannot work.
	s.press("/reset-password", reset, "password", "short").form(400, "at least 8 characters", reset)
	s.press("/reset-password", reset, "password", "ann@example.com").form(400, "too easy to guess", reset)
	s.press("/reset-password", reset, "password", otherPassword).told(200, "Password changed")
	s.open("/reset-password", reset).told(400, dead, "forgot password").not(allWell)
	s.press("/reset-password", reset, "password", otherPassword).told(400, dead).not(allWell)
}

func TestLandingOfLateLinks(t *testing.T) {
	t.Parallel()
	s := newService(t)
	ann := s.signup("ann@example.com").Data.Tokens
	s.forgot("ann@example.com")
	s.want(s.call("POST", "/change-email", ann.AccessToken, fields{"newEmail": "new@example.com", "currentPassword": goodPassword}), 202, "")
	links := map[string]string{
		"/verify-email":         s.link(event.UserVerificationRequested{}, "ann@example.com", 1),
		"/reset-password":       s.link(event.UserResetLinkIssued{}, "ann@example.com", 1),
		"/change-email/confirm": s.link(event.UserEmailChangeLinkIssued{}, "new@example.com", 1),
	}
	s.advance(61 * time.Minute)
	for path, link := range links {
		s.open(path, link).told(410, expired).not(allWell)
		s.press(path, link, "password", otherPassword).told(410, expired).not(allWell)
	}
}

func TestLandingOfChangedAddresses(t *testing.T) {
	t.Parallel()
	s := newService(t)
	ann := s.verified("ann@example.com").Data
	change := func(bearer, to string) string {
		s.want(s.call("POST", "/change-email", bearer, fields{"newEmail": to, "currentPassword": goodPassword}), 202, "")
		return s.link(event.UserEmailChangeLinkIssued{}, to, 1)
	}
	confirm := change(ann.Tokens.AccessToken, "new@example.com")
	s.open("/change-email/confirm", confirm).form(200, "n***@example.com").not("a***@example.com", "new@example.com")
	s.press("/change-email/confirm", confirm).told(200, "Email address changed")
	s.open("/change-email/confirm", confirm).told(400, dead).not(allWell)

	revert := s.link(event.UserEmailRevertLinkIssued{}, "ann@example.com", 1)
	for range 2 {
		s.open("/change-email/revert", revert).form(200, "a***@example.com")
	}
	s.signup("ann@example.com") // Somebody else took it meanwhile.
	s.open("/change-email/revert", revert).told(409, "Another account uses this address")
	s.press("/change-email/revert", revert).told(409, "Another account uses this address")

	taken := change(s.login("new@example.com").Data.Tokens.AccessToken, "bob@example.com")
	s.signup("bob@example.com")
	s.press("/change-email/confirm", taken).told(409, "Another account uses this address")
	s.open("/change-email/confirm", taken).told(409, "Another account uses this address")
}

func TestLandingOfUsedReverts(t *testing.T) {
	t.Parallel()
	s := newService(t)
	ann := s.verified("ann@example.com").Data.Tokens
	s.want(s.call("POST", "/change-email", ann.AccessToken, fields{"newEmail": "new@example.com", "currentPassword": goodPassword}), 202, "")
	s.want(s.call("POST", "/change-email/confirm", "", fields{"token": s.link(event.UserEmailChangeLinkIssued{}, "new@example.com", 1)}), 200, "")
	revert := s.link(event.UserEmailRevertLinkIssued{}, "ann@example.com", 1)
	s.press("/change-email/revert", revert).told(200, "Change undone")
	s.open("/change-email/revert", revert).told(400, dead, "contact support").not(allWell)
}

// An account that has another address by now, or is disabled, has no use for the link.
func TestLandingAgreesWithTheForm(t *testing.T) {
	t.Parallel()
	s := newService(t)
	ann := s.signup("ann@example.com").Data
	s.forgot("ann@example.com")
	s.want(s.call("POST", "/change-email", ann.Tokens.AccessToken, fields{"newEmail": "new@example.com", "currentPassword": goodPassword}), 202, "")
	verify := s.link(event.UserVerificationRequested{}, "ann@example.com", 1)
	reset := s.link(event.UserResetLinkIssued{}, "ann@example.com", 1)
	confirm := s.link(event.UserEmailChangeLinkIssued{}, "new@example.com", 1)
	set := func(change string) {
		t.Helper()
		if _, err := s.db.Exec(t.Context(), `UPDATE accounts SET `+change+` WHERE id = $1`, ann.User.ID); err != nil {
			t.Fatal(err)
		}
	}
	both := func(path, link string, status int) {
		t.Helper()
		s.open(path, link).told(status, dead)
		s.press(path, link, "password", otherPassword).told(status, dead)
	}
	set(`status = 'disabled'`)
	both("/reset-password", reset, 400)
	both("/change-email/confirm", confirm, 400)
	s.open("/verify-email", verify).form(200)
	set(`status = 'active', email = 'Ann@example.com'`)
	both("/reset-password", reset, 400)
	both("/verify-email", verify, 400)
	s.open("/change-email/confirm", confirm).form(200)
}

// Whoever only looks waits for nobody.
func TestLandingLocksNothing(t *testing.T) {
	t.Parallel()
	s := newService(t)
	link := s.verifyLink("ann@example.com")
	tx, err := s.db.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback(context.Background()) //nolint:errcheck // It has nothing to keep.
	if _, err := tx.Exec(t.Context(), `SELECT FROM accounts a, one_time_tokens t FOR UPDATE`); err != nil {
		t.Fatal(err)
	}
	s.open("/verify-email", link).form(200)
}

func TestLandingHelpsPasswordManagers(t *testing.T) {
	t.Parallel()
	s := newService(t, func(cfg *account.Config) { cfg.PasswordMinLength = 13 })
	s.signup("ann@example.com")
	s.forgot("ann@example.com")
	link := s.link(event.UserResetLinkIssued{}, "ann@example.com", 1)
	for _, page := range []landed{s.open("/reset-password", link), s.press("/reset-password", link, "password", "twelve chars")} {
		page.want(page.status, true, `minlength="13"`, "At least 13 characters.", `autocomplete="new-password"`,
			`<input name="username" type="text" value="ann@example.com" autocomplete="username" readonly hidden>`)
	}
}

// A browser gets a page whatever goes wrong, and a program gets JSON.
func TestFormsThatFail(t *testing.T) {
	t.Parallel()
	s := newService(t)
	link := s.verifyLink("ann@example.com")
	const form = "application/x-www-form-urlencoded"
	s.browse("POST", "/verify-email", form, "token="+strings.Repeat("a", 16<<10)).told(413, "did not work")
	s.browse("POST", "/verify-email", form+"; charset=utf-8", "token=%zz").told(400, "did not work")
	s.browse("POST", "/verify-email", form, "").told(400, dead)
	s.press("/reset-password", "", "password", "short").told(400, dead)
	s.browse("GET", "/verify-email", "", "").told(400, "incomplete")
	if _, err := s.db.Exec(t.Context(), `ALTER TABLE one_time_tokens RENAME TO lost`); err != nil {
		t.Fatal(err)
	}
	s.press("/verify-email", link).told(500, "on our side")
	s.press("/reset-password", link, "password", otherPassword).told(500, "on our side")
	s.press("/reset-password", link, "password", "short").told(500, "on our side")
	s.open("/verify-email", link).told(500, "on our side")
	s.want(s.call("POST", "/verify-email", "", fields{"token": link}), 500, "internal_error")
}

// TestSEC55LandingLeadsOn: pages lead on to the application and nowhere else.
func TestSEC55LandingLeadsOn(t *testing.T) {
	t.Parallel()
	s := newService(t)
	const home = `<a class="button" href="https://app.example.com/in?a=1&amp;b=2">Continue</a>`
	app := s.app("https://app.example.com/in?a=1&b=2")
	link := s.verifyLink("ann@example.com")
	app.open("/verify-email", link).form(200).not("<a ")
	app.open("/verify-email", "unknown").told(400, home)
	s.open("/verify-email", "unknown").told(400).not("<a ")
	for _, name := range []string{"redirect", "redirect_to", "next", "continue", "url"} {
		app.browse("GET", "/verify-email?"+name+"=https://evil.example&token="+link, "", "").form(200).not("evil")
		app.press("/verify-email", "unknown", name, "https://evil.example").told(400, home).not("evil")
	}
	app.press("/verify-email", link, "redirect", "https://evil.example").told(200, home).not("evil")
}
