package tests

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
)

// secrets are all that clients of this run sent or got and nobody else may see.
var secrets struct {
	sync.Mutex
	seen map[string]string // the name by its value
}

// secretNames are the members of bodies that hold a secret.
var secretNames = []string{
	"password", "newPassword", "currentPassword", "accessToken", "refreshToken", "token", "mfaToken", "passkeyToken", "secret", "recoveryCodes",
}

// remember takes the secrets from a body, and from what is in it.
func remember(body []byte) {
	var value any
	if json.Unmarshal(body, &value) == nil {
		walk("", value)
	}
}

func walk(name string, value any) {
	switch v := value.(type) {
	case map[string]any:
		for name, inner := range v {
			walk(name, inner)
		}
	case []any:
		for _, inner := range v {
			walk(name, inner)
		}
	case string:
		const shortest = 8 // What is shorter, such as six digits, stands in many a line by chance.
		if len(v) < shortest || !slices.Contains(secretNames, name) {
			return
		}
		secrets.Lock()
		defer secrets.Unlock()
		if secrets.seen == nil {
			secrets.seen = map[string]string{}
		}
		secrets.seen[v] = name
	}
}

// leaked returns the names of the secrets that the logs of the stack hold. The
// administrator's password is shown on purpose: it is one of a trial.
func (l *launched) leaked() ([]string, error) {
	log, err := os.ReadFile(filepath.Join(filepath.Dir(l.dir), "output.log"))
	if err != nil {
		return nil, err
	}
	facts, err := l.read()
	if err != nil {
		return nil, err
	}
	secrets.Lock()
	defer secrets.Unlock()
	var found []string
	for secret, name := range secrets.seen {
		if secret != facts.Admin.Password && bytes.Contains(log, []byte(secret)) {
			found = append(found, name)
		}
	}
	slices.Sort(found)
	return slices.Compact(found), nil
}

// TestSEC20NoSecretInLogs goes through what has secrets and looks for them in the
// logs of all processes. TestMain looks again, for those of all tests.
func TestSEC20NoSecretInLogs(t *testing.T) {
	t.Parallel()
	c, email := newClient(t), newEmail()
	c.signup(email)
	link, err := url.Parse(awaitLink(t, email))
	if err != nil {
		t.Fatal(err)
	}
	// The page is where the secret is in a URL, the form where it is in a body.
	res, err := httpClient.Get(link.String())
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	c.do(http.StatusOK, "POST", "/api/v1/auth/verify-email", object{"token": link.Query().Get("token")}, nil)
	c.do(http.StatusBadRequest, "POST", "/api/v1/auth/verify-email", object{"token": link.Query().Get("token")}, nil)
	c.do(http.StatusUnauthorized, "POST", "/api/v1/auth/login", object{"email": email, "password": "not the right password"}, nil)
	c.do(http.StatusBadRequest, "POST", "/api/v1/auth/login", object{"email": email, "password": "a password too many", "passwort": "misspelt password"}, nil)
	c.do(http.StatusUnauthorized, "POST", "/api/v1/auth/refresh", object{"refreshToken": "a.forged.refresh-token"}, nil)
	c.do(http.StatusCreated, "POST", "/api/v1/auth/mfa/totp", nil, nil)
	last := c.do(http.StatusOK, "POST", "/api/v1/auth/logout", nil, nil).header.Get("X-Request-Id")

	secrets.Lock()
	n := len(secrets.seen)
	secrets.Unlock()
	if n < 5 {
		t.Fatalf("%d secrets were remembered", n)
	}
	eventually(t, func() error {
		log, err := os.ReadFile(filepath.Join(filepath.Dir(system.dir), "output.log"))
		if err == nil && !strings.Contains(string(log), last) {
			err = fmt.Errorf("the log does not tell of the request %s yet", last)
		}
		return err
	})
	if found, err := system.leaked(); err != nil || len(found) > 0 {
		t.Errorf("the logs hold %v, %v", found, err)
	}
}
