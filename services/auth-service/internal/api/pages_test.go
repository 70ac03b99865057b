package api_test

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"html"
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

// Landing pages work in a browser without scripts.
func TestLandingPages(t *testing.T) {
	t.Parallel()
	s := newService(t)
	ann := s.signup("ann@example.com").Data.Tokens
	s.forgot("ann@example.com")
	link := s.link(event.UserResetLinkIssued{}, "ann@example.com", 1)
	s.want(s.call("POST", "/change-email", ann.AccessToken, fields{"newEmail": "new@example.com", "currentPassword": goodPassword}), 202, "")
	confirm := s.link(event.UserEmailChangeLinkIssued{}, "new@example.com", 1)
	for path, secret := range map[string]string{"/reset-password": link, "/change-email/confirm": confirm} {
		for range 2 { // GET does not use the link.
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
	// The page shows the form again, with the error.
	if status, page := form("/reset-password", url.Values{"token": {link}, "password": {"short"}}); status != 400 || !strings.Contains(page, "at least 8 characters") || !strings.Contains(page, link) {
		t.Errorf("a short password = %d %s", status, page)
	}
	if status, page := form("/reset-password", url.Values{"token": {link}, "password": {otherPassword}}); status != 200 || !strings.Contains(page, "Password changed") {
		t.Errorf("reset = %d %s", status, page)
	}
	if status, page := form("/reset-password", url.Values{"token": {link}, "password": {otherPassword}}); status != 400 || !strings.Contains(page, "no longer valid") {
		t.Errorf("reset again = %d %s", status, page)
	}
	// The reset has revoked the link that changes the address.
	if status, _ := form("/change-email/confirm", url.Values{"token": {confirm}}); status != 400 {
		t.Errorf("confirm after a reset = %d", status)
	}
}

// landed is a page in a browser.
type landed struct {
	t      *testing.T
	what   string
	status int
	header http.Header
	body   string
}

// open opens a link.
func (s *service) open(path, secret string) landed {
	s.t.Helper()
	return s.browse("GET", path+"?token="+url.QueryEscape(secret), "", "")
}

// press submits the form of a landing page.
func (s *service) press(path, secret string, more ...string) landed {
	s.t.Helper()
	form := url.Values{"token": {secret}}
	for i := 0; i < len(more); i += 2 {
		form.Set(more[i], more[i+1])
	}
	return s.browse("POST", path, "application/x-www-form-urlencoded", form.Encode())
}

// browse sends a request and checks that the answer is a page with a strict policy.
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
	for name, want := range map[string]string{"Cross-Origin-Opener-Policy": "same-origin", "Cross-Origin-Resource-Policy": "same-origin"} {
		if got := header.Get(name); got != want || !strings.Contains(header.Get("Permissions-Policy"), "camera=()") {
			s.t.Errorf("%s: %s = %q, want %q, and a permissions policy", p.what, name, got, want)
		}
	}
	if plain := html.UnescapeString(p.body); !strings.Contains(plain, "· "+brand+"</title>") || !strings.Contains(plain, ">A</span>"+brand+"</div>") || strings.Contains(plain, "Headgate") || strings.Contains(p.body, brand) {
		s.t.Errorf("%s: the product name is missing, or not escaped:\n%s", p.what, data)
	}
	return p
}

// form wants a page with a form and the texts.
func (p landed) form(status int, texts ...string) landed {
	p.t.Helper()
	if !strings.Contains(p.body, "<form") {
		p.t.Fatalf("%s = %d, want a form\n%s", p.what, p.status, p.body)
	}
	return p.want(status, texts...)
}

// message wants a page with the texts and without a form.
func (p landed) message(status int, texts ...string) landed {
	p.t.Helper()
	if strings.Contains(p.body, "<form") || strings.Contains(p.body, "<input") {
		p.t.Fatalf("%s = %d, want no form\n%s", p.what, p.status, p.body)
	}
	return p.want(status, texts...)
}

func (p landed) want(status int, texts ...string) landed {
	p.t.Helper()
	if p.status != status {
		p.t.Fatalf("%s = %d, want %d\n%s", p.what, p.status, status, p.body)
	}
	for _, text := range texts {
		if !strings.Contains(p.body, text) {
			p.t.Errorf("%s has no %q:\n%s", p.what, text, p.body)
		}
	}
	return p
}

// not wants a page without the texts.
func (p landed) not(texts ...string) landed {
	p.t.Helper()
	for _, text := range texts {
		if strings.Contains(p.body, text) {
			p.t.Errorf("%s has %q:\n%s", p.what, text, p.body)
		}
	}
	return p
}

// app returns the same service with the URL of an application.
func (s *service) app(appURL string) *service {
	s.t.Helper()
	server := httptest.NewServer(web.NewRouter(api.Routes(s.accounts, s.keyring, api.Site{Brand: brand, AppURL: appURL}), web.Options{
		Log: testkit.Log(s.t), Metrics: prometheus.NewRegistry(),
	}))
	s.t.Cleanup(server.Close)
	return &service{Server: server, t: s.t, db: s.db, sealer: s.sealer, accounts: s.accounts, keyring: s.keyring}
}

const (
	invalid = "This link is no longer valid"
	expired = "This link has expired"
	allSet  = "you are all set"
)

// A page checks its link before it shows a form, and does not use it.
func TestLandingChecksTheLink(t *testing.T) {
	t.Parallel()
	s := newService(t)
	first := s.verifyLink("ann@example.com")
	s.want(s.call("POST", "/resend-verification", "", fields{"email": "ann@example.com"}), 202, "")
	verify := s.link(event.UserVerificationRequested{}, "ann@example.com", 2)
	s.open("/verify-email", first).message(400, invalid)
	s.open("/verify-email", "unknown").message(400, invalid)
	s.open("/verify-email", strings.Repeat("a", 300)).message(400, "incomplete")
	s.open("/reset-password", verify).message(400, invalid) // It has another purpose.
	for range 3 {
		s.open("/verify-email", verify).form(200, "a***@example.com").not("confirm ann@example.com")
	}
	s.press("/verify-email", verify, "password", goodPassword).message(200, "confirmed")
	s.open("/verify-email", verify).message(400, invalid, allSet)
	s.press("/verify-email", verify).message(400, invalid, allSet)

	s.forgot("ann@example.com")
	old := s.link(event.UserResetLinkIssued{}, "ann@example.com", 1)
	s.forgot("ann@example.com")
	reset := s.link(event.UserResetLinkIssued{}, "ann@example.com", 2)
	s.open("/reset-password", old).message(400, invalid).not(allSet)
	s.open("/reset-password", reset).form(200, "a***@example.com")
	s.press("/reset-password", old, "password", "short").message(400, invalid) // The link is checked first.
	s.press("/reset-password", reset, "password", "short").form(400, "at least 8 characters", reset)
	s.press("/reset-password", reset, "password", "ann@example.com").form(400, "too easy to guess", reset)
	s.press("/reset-password", reset, "password", otherPassword).message(200, "Password changed")
	s.open("/reset-password", reset).message(400, invalid, "Forgot password").not(allSet)
	s.press("/reset-password", reset, "password", otherPassword).message(400, invalid).not(allSet)
}

func TestLandingOfExpiredLinks(t *testing.T) {
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
		s.open(path, link).message(410, expired).not(allSet)
		s.press(path, link, "password", otherPassword).message(410, expired).not(allSet)
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
	s.press("/change-email/confirm", confirm).message(200, "Email address changed")
	s.open("/change-email/confirm", confirm).message(400, invalid).not(allSet)

	revert := s.link(event.UserEmailRevertLinkIssued{}, "ann@example.com", 1)
	for range 2 {
		s.open("/change-email/revert", revert).form(200, "a***@example.com")
	}
	s.signup("ann@example.com") // Somebody else takes the address.
	s.open("/change-email/revert", revert).message(409, "Another account uses this address")
	s.press("/change-email/revert", revert).message(409, "Another account uses this address")

	taken := change(s.login("new@example.com").Data.Tokens.AccessToken, "bob@example.com")
	s.signup("bob@example.com")
	s.press("/change-email/confirm", taken).message(409, "Another account uses this address")
	s.open("/change-email/confirm", taken).message(409, "Another account uses this address")
}

func TestLandingOfUsedReverts(t *testing.T) {
	t.Parallel()
	s := newService(t)
	ann := s.verified("ann@example.com").Data.Tokens
	s.want(s.call("POST", "/change-email", ann.AccessToken, fields{"newEmail": "new@example.com", "currentPassword": goodPassword}), 202, "")
	s.want(s.call("POST", "/change-email/confirm", "", fields{"token": s.link(event.UserEmailChangeLinkIssued{}, "new@example.com", 1)}), 200, "")
	revert := s.link(event.UserEmailRevertLinkIssued{}, "ann@example.com", 1)
	s.press("/change-email/revert", revert).message(200, "Change undone")
	s.open("/change-email/revert", revert).message(400, invalid, "contact support").not(allSet)
}

// A link is refused if the account has another address by now or is disabled.
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
		s.open(path, link).message(status, invalid)
		s.press(path, link, "password", otherPassword).message(status, invalid)
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

// Opening a page does not wait for locks.
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
		page.form(page.status, `minlength="13"`, "At least 13 characters.", `autocomplete="new-password"`,
			`<input name="username" type="text" value="ann@example.com" autocomplete="username" readonly hidden>`)
	}
}

// Every error is a page for a browser, and JSON for a program.
func TestFormsThatFail(t *testing.T) {
	t.Parallel()
	s := newService(t)
	link := s.verifyLink("ann@example.com")
	const form = "application/x-www-form-urlencoded"
	s.browse("POST", "/verify-email", form, "token="+strings.Repeat("a", 16<<10)).message(413, "did not work")
	s.browse("POST", "/verify-email", form+"; charset=utf-8", "token=%zz").message(400, "did not work")
	s.browse("POST", "/verify-email", form, "").message(400, invalid)
	s.press("/reset-password", "", "password", "short").message(400, invalid)
	s.browse("GET", "/verify-email", "", "").message(400, "incomplete")
	if _, err := s.db.Exec(t.Context(), `ALTER TABLE one_time_tokens RENAME TO lost`); err != nil {
		t.Fatal(err)
	}
	s.press("/verify-email", link).message(500, "on our side")
	s.press("/reset-password", link, "password", otherPassword).message(500, "on our side")
	s.press("/reset-password", link, "password", "short").message(500, "on our side")
	s.open("/verify-email", link).message(500, "on our side")
	s.want(s.call("POST", "/verify-email", "", fields{"token": link}), 500, "internal_error")
}

// SEC-55: pages link to the application and nowhere else.
func TestSEC55LandingLinksToTheApplication(t *testing.T) {
	t.Parallel()
	s := newService(t)
	const home = `<a class="button" href="https://app.example.com/in?a=1&amp;b=2">Continue</a>`
	app := s.app("https://app.example.com/in?a=1&b=2")
	link := s.verifyLink("ann@example.com")
	app.open("/verify-email", link).form(200).not("<a ")
	app.open("/verify-email", "unknown").message(400, home)
	s.open("/verify-email", "unknown").message(400).not("<a ")
	for _, name := range []string{"redirect", "redirect_to", "next", "continue", "url"} {
		app.browse("GET", "/verify-email?"+name+"=https://evil.example&token="+link, "", "").form(200).not("evil")
		app.press("/verify-email", "unknown", name, "https://evil.example").message(400, home).not("evil")
	}
	app.press("/verify-email", link, "password", goodPassword, "redirect", "https://evil.example").message(200, home).not("evil")
}
