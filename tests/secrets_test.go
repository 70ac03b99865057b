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

	"github.com/headgate/headgate/pkg/testkit"
)

// secrets are the secrets that clients of this run sent or received.
var secrets struct {
	sync.Mutex
	seen map[string]string // name by value
}

// secretNames are the fields of bodies that contain a secret.
var secretNames = []string{
	"password", "newPassword", "currentPassword", "accessToken", "refreshToken", "token", "mfaToken", "passkeyToken", "secret", "recoveryCodes",
}

// remember records the secrets in a body, at any depth.
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
		const shortest = 8 // A shorter value, such as six digits, may be in a log line by chance.
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

// leaked returns the names of the secrets that the logs of the stack contain. The
// administrator's password is not counted: the local stack prints it on purpose.
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

// TestSEC20NoSecretInLogs sends requests with secrets and searches the logs of all
// processes for them. TestMain searches again, for the secrets of all tests.
func TestSEC20NoSecretInLogs(t *testing.T) {
	t.Parallel()
	c, email := newClient(t), newEmail()
	c.signup(email)
	link, err := url.Parse(awaitLink(t, email))
	if err != nil {
		t.Fatal(err)
	}
	// The landing page has the secret in its URL, and the form in its body.
	res, err := httpClient.Get(link.String())
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	c.do(http.StatusOK, "POST /api/v1/auth/verify-email", object{"token": link.Query().Get("token")}, nil)
	c.do(http.StatusBadRequest, "POST /api/v1/auth/verify-email", object{"token": link.Query().Get("token")}, nil)
	c.do(http.StatusUnauthorized, "POST /api/v1/auth/login", object{"email": email, "password": "not the right password"}, nil)
	c.do(http.StatusBadRequest, "POST /api/v1/auth/login", object{"email": email, "password": "a password too many", "passwort": "misspelt password"}, nil)
	c.do(http.StatusUnauthorized, "POST /api/v1/auth/refresh", object{"refreshToken": "a.forged.refresh-token"}, nil)
	c.do(http.StatusCreated, "POST /api/v1/auth/mfa/totp", nil, nil)
	last := c.do(http.StatusOK, "POST /api/v1/auth/logout", nil, nil).header.Get("X-Request-Id")

	secrets.Lock()
	n := len(secrets.seen)
	secrets.Unlock()
	if n < 5 {
		t.Fatalf("%d secrets were recorded, want at least 5", n)
	}
	testkit.Eventually(t, func() error {
		log, err := os.ReadFile(filepath.Join(filepath.Dir(system.dir), "output.log"))
		if err == nil && !strings.Contains(string(log), last) {
			err = fmt.Errorf("the log does not have request %s yet", last)
		}
		return err
	})
	if found, err := system.leaked(); err != nil || len(found) > 0 {
		t.Errorf("the logs contain %v, %v", found, err)
	}
}
