package tests

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/headgate/headgate/pkg/testkit"
)

const otherPassword = "quite another battery"

// follow opens the landing page of a link and submits its form, as a browser without
// scripts does.
func follow(t *testing.T, c *client, link string, form url.Values) string {
	t.Helper()
	address := mustURL(t, link)
	if page := getPage(t, c.gateway+address.RequestURI()); !strings.Contains(page, `action="`+address.Path+`"`) {
		t.Fatalf("the page has no form:\n%s", page)
	}
	if form == nil {
		form = url.Values{}
	}
	form.Set("token", address.Query().Get("token"))
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, c.gateway+address.Path, strings.NewReader(form.Encode()))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	res, err := httpClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	page, err := readAll(t.Context(), res.Body)
	if err != nil || res.StatusCode != http.StatusOK {
		t.Fatalf("POST %s = %s %v\n%s", address.Path, res.Status, err, page)
	}
	return string(page)
}

// TestForgottenPassword resets a forgotten password.
func TestForgottenPassword(t *testing.T) {
	t.Parallel()
	c, email := newClient(t), newEmail()
	me := c.signup(email)
	c.do(http.StatusAccepted, "POST /api/v1/auth/forgot-password", object{"email": email}, nil)
	link := awaitLinkTo(t, email, "auth/reset-password")
	if page := follow(t, c, link, url.Values{"password": {otherPassword}}); !strings.Contains(page, "Password changed") {
		t.Errorf("page = %s", page)
	}
	c.do(http.StatusUnauthorized, "POST /api/v1/auth/login", object{"email": email, "password": goodPassword}, nil)
	c.login(email, otherPassword)
	testkit.Eventually(t, func() error { return wantSubjects(t, email, "Your password was changed") })
	wantAudit(t, me.ID, map[string]int{
		"user.signed_up": 1, "user.password_reset_requested": 1, "user.email_verified": 1, "user.password_changed": 1,
		"session.revoked": 1, "user.login_failed": 1, "user.logged_in": 1, "email.sent": 3,
	})
}

// wantSubjects fails unless there is a mail with each subject.
func wantSubjects(t *testing.T, email string, subjects ...string) error {
	t.Helper()
	mails, err := inbox(t, email)
	if err != nil {
		return err
	}
	got := map[string]bool{}
	for _, m := range mails {
		got[m.Subject] = true
	}
	for _, subject := range subjects {
		if !got[subject] {
			return fmt.Errorf("%s has no mail %q, only %v", email, subject, got)
		}
	}
	return nil
}

// TestNewAddress changes an address and undoes the change from the old one.
func TestNewAddress(t *testing.T) {
	t.Parallel()
	c, email, next := newClient(t), newEmail(), newEmail()
	c.signup(email)
	c.do(http.StatusAccepted, "POST /api/v1/auth/change-email", object{"newEmail": next, "currentPassword": goodPassword}, nil)
	follow(t, c, awaitLinkTo(t, next, "auth/change-email/confirm"), url.Values{"password": {goodPassword}})
	c.login(next, goodPassword)
	wantProfile := func(address string) {
		t.Helper()
		testkit.Eventually(t, func() error {
			var profile struct{ Email string }
			if c.do(http.StatusOK, "GET /api/v1/user/me", nil, &profile); profile.Email != address {
				return fmt.Errorf("the profile has %s, want %s", profile.Email, address)
			}
			return nil
		})
	}
	wantProfile(next)
	follow(t, c, awaitLinkTo(t, email, "auth/change-email/revert"), nil)
	follow(t, c, awaitLinkTo(t, email, "auth/reset-password"), url.Values{"password": {otherPassword}})
	c.login(email, otherPassword)
	wantProfile(email)
}

// TestRepeatedSignUp repeats a sign-up with the same Idempotency-Key, as a client does
// that lost the response.
func TestRepeatedSignUp(t *testing.T) {
	t.Parallel()
	c, email := newClient(t), newEmail()
	body := object{"email": email, "password": goodPassword, "name": "Ada"}
	var first, again signedIn
	c.do(http.StatusCreated, "POST /api/v1/auth/signup", body, &first, "Idempotency-Key", email)
	a := c.do(http.StatusCreated, "POST /api/v1/auth/signup", body, &again, "Idempotency-Key", email)
	if a.header.Get("Idempotency-Replayed") != "true" || first != again {
		t.Errorf("Idempotency-Replayed = %q, answers %+v and %+v", a.header.Get("Idempotency-Replayed"), first, again)
	}
}
