package tests

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/headgate/headgate/pkg/testkit"
)

// export returns the export at an address, as text and decoded.
func (c *client) export(address string) (text string, parts map[string]json.RawMessage) {
	c.t.Helper()
	req, err := http.NewRequestWithContext(c.t.Context(), http.MethodGet, address, http.NoBody)
	if err != nil {
		c.t.Fatal(err)
	}
	if c.tokens.AccessToken != "" {
		req.Header.Set("Authorization", "Bearer "+c.tokens.AccessToken)
	}
	res, err := httpClient.Do(req)
	if err != nil {
		c.t.Fatal(err)
	}
	data, err := readAll(c.t.Context(), res.Body)
	if err != nil {
		c.t.Fatal(err)
	}
	if err := json.Unmarshal(data, &parts); err != nil || res.StatusCode != http.StatusOK {
		c.t.Fatalf("export = %d %s, %v", res.StatusCode, data, err)
	}
	return string(data), parts
}

// TestSEC160ExportAndErasure: the export of a user who did everything has every trace of it and
// no secret. After the deletion the erasure report finds nothing, in any service.
func TestSEC160ExportAndErasure(t *testing.T) {
	t.Parallel()
	c, email := newClient(t), newEmail()
	me := c.signup(email)
	c.do(http.StatusOK, "PATCH /api/v1/user/me", object{"bio": "Bio of " + email, "preferences": object{"colour": "mauve-" + me.ID}}, nil)
	verification := mustURL(t, awaitLink(t, email))
	c.do(http.StatusOK, "POST /api/v1/auth/verify-email", object{"token": verification.Query().Get("token")}, nil)
	c.do(http.StatusUnauthorized, "POST /api/v1/auth/login", object{"email": email, "password": "not the password"}, nil)
	c.do(http.StatusOK, "POST /api/v1/auth/login", object{"email": email, "password": goodPassword, "deviceName": "device of " + email}, nil)
	var factor struct{ FactorID, Secret string }
	c.do(http.StatusCreated, "POST /api/v1/auth/mfa/totp", nil, &factor)
	c.do(http.StatusAccepted, "POST /api/v1/auth/change-email", object{"newEmail": "new-" + email, "currentPassword": goodPassword}, nil)
	var text string
	testkit.Eventually(t, func() error {
		var parts map[string]json.RawMessage
		text, parts = c.export(c.gateway + "/api/v1/user/me/export")
		for part, traces := range map[string][]string{
			"profile": {email, "Bio of " + email, "mauve-" + me.ID},
			"auth":    {email, "device of " + email, factor.FactorID, `"change_email"`, "new-" + email, "127.0.0.1"},
			"email":   {"verification", email, "new-" + email, `"sent"`},
			"audit":   {"user.signed_up", "user.logged_in", "user.login_failed", "user.profile_updated", "user.email_change_requested", "email.sent", email},
		} {
			for _, trace := range traces {
				if !strings.Contains(string(parts[part]), trace) {
					return fmt.Errorf("%s has no %q: %s", part, trace, parts[part])
				}
			}
		}
		return nil
	})
	for _, secret := range []string{goodPassword, "$argon2id$", factor.Secret, c.tokens.RefreshToken} {
		if strings.Contains(text, secret) {
			t.Errorf("the export has the secret %q", secret)
		}
	}
	c.login(email, goodPassword) // The token of this session has the address, which is verified.
	c.do(http.StatusAccepted, "POST /api/v1/user/me/export", nil, nil)
	mailed := newClient(t)
	if _, parts := mailed.export(awaitLinkTo(t, email, "user/export")); !strings.Contains(string(parts["profile"]), "Bio of "+email) {
		t.Errorf("the mailed export has the profile %s", parts["profile"])
	}
	if status, report := erasureReport(t, me.ID); status != 1 || !regexp.MustCompile(`(?m)^auth-service: accounts: 1$`).MatchString(report) ||
		!strings.Contains(report, "user-service: profiles: 1") || !strings.Contains(report, "email-service: messages:") || !strings.Contains(report, "audit-service: records") {
		t.Errorf("report before the deletion = %d\n%s", status, report)
	}
	c.do(http.StatusAccepted, "DELETE /api/v1/auth/account", object{"password": goodPassword}, nil)
	testkit.Eventually(t, func() error {
		const nothing = "auth-service: nothing\nuser-service: nothing\nemail-service: nothing\naudit-service: nothing\n"
		if status, report := erasureReport(t, me.ID); status != 0 || report != nothing {
			return fmt.Errorf("report after the deletion = %d\n%s", status, report)
		}
		return nil
	})
	if status, report := erasureReport(t, "root"); status != 2 || report != "" {
		t.Errorf("report of a name = %d %s, want 2: cannot know", status, report)
	}
}

// erasureReport runs make erasure-report, without make.
func erasureReport(t *testing.T, id string) (status int, report string) {
	t.Helper()
	facts(t)
	cmd := exec.CommandContext(t.Context(), filepath.Join(filepath.Dir(system.dir), "launcher"), "-dir", system.dir, "erasure-report", id)
	cmd.Dir, cmd.Env = root, environment()
	out, err := cmd.Output()
	if exit, failed := errors.AsType[*exec.ExitError](err); failed {
		return exit.ExitCode(), string(out)
	}
	if err != nil {
		t.Fatal(err)
	}
	return 0, string(out)
}
