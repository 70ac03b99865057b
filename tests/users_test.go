package tests

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/uuid"

	"github.com/headgate/headgate/pkg/testkit"
)

// oldHash is goodPassword as an earlier system stored it: bcrypt at cost 6.
const oldHash = "$2a$06$laTf.2qTutT5SDEyoHkY6eRr1qyiVa0FrbNyrLEFSJszFSHdaGjy2"

// TestImportCommand imports users with password hashes of an older system. Invalid lines
// are reported, and a second import of the same file changes nothing.
func TestImportCommand(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "users.ndjson")
	var lines []string
	emails := make([]string, 1200)
	for i := range emails {
		emails[i] = newEmail()
		line, err := json.Marshal(object{"email": emails[i], "name": "Ada", "emailVerified": true, "passwordHash": oldHash})
		if err != nil {
			t.Fatal(err)
		}
		lines = append(lines, string(line))
	}
	lines[3] = `{"email":"nonsense","name":"Ada"}`
	lines[900] = `not JSON`
	if err := os.WriteFile(file, []byte(strings.Join(lines, "\n")), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"1198 created, 0 existing, 2 refused", "0 created, 1198 existing, 2 refused"} {
		_, stderr, code := command(t, "auth-service", "users", "import", file)
		if code != 1 || !strings.Contains(stderr, want) || !strings.Contains(stderr, "lines refused: 2;") {
			t.Fatalf("import = %d, want %q in\n%s", code, want, stderr)
		}
	}
	report, err := os.ReadFile(file + ".refused")
	if err != nil || strings.Count(string(report), "\n") != 2 || !strings.Contains(string(report), `"line":4,"email":"nonsense"`) || !strings.Contains(string(report), `"line":901`) {
		t.Errorf("report = %s, %v", report, err)
	}
	c := newClient(t)
	c.login(emails[0], goodPassword)
	c.do(http.StatusOK, "GET /api/v1/user/me", nil, nil)

	stdout, stderr, code := command(t, "auth-service", "users", "export")
	if code != 0 || strings.Contains(stderr, "$2") {
		t.Fatalf("export = %d\n%s", code, stderr)
	}
	for i, want := range map[int]string{0: "$argon2id$", 1: "$2"} { // Signing in has replaced the first hash.
		if !strings.Contains(stdout, fmt.Sprintf(`"email":%q,"emailVerified":true,"name":"Ada","role":"user","status":"active","passwordHash":"%s`, emails[i], want)) {
			t.Errorf("the export does not have %s with %s", emails[i], want)
		}
	}
}

// TestSEC146ImportAfterADeletion rehearses a migration: import, delete all, import again. The
// accounts of the second import work: their owners sign in, have a profile and get mails.
func TestSEC146ImportAfterADeletion(t *testing.T) {
	t.Parallel()
	file, deletions := filepath.Join(t.TempDir(), "users.ndjson"), filepath.Join(t.TempDir(), "ids")
	oldID := uuid.NewString()
	emails := []string{newEmail(), newEmail(), newEmail()}
	var lines strings.Builder
	for i, line := range []object{{"id": oldID}, {"createdAt": "2020-02-03T04:05:06Z"}, {}} {
		line["email"], line["name"], line["emailVerified"], line["passwordHash"] = emails[i], "Ada", true, oldHash
		if err := json.NewEncoder(&lines).Encode(line); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(file, []byte(lines.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	wantImport := func(want string) {
		t.Helper()
		if _, stderr, code := command(t, "auth-service", "users", "import", file); code != 0 || !strings.Contains(stderr, want) {
			t.Fatalf("import = %d, want %q in\n%s", code, want, stderr)
		}
	}
	wantImport("3 created, 0 existing, 0 refused")
	var ids strings.Builder
	clients := make([]*client, len(emails))
	for i, email := range emails {
		clients[i] = newClient(t)
		fmt.Fprintln(&ids, clients[i].login(email, goodPassword).ID)
	}
	if err := os.WriteFile(deletions, []byte(ids.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, stderr, code := command(t, "auth-service", "users", "delete", deletions); code != 0 || !strings.Contains(out, "accounts deleted: 3;") {
		t.Fatalf("delete = %d %s%s", code, out, stderr)
	}
	admin := newAdmin(t)
	for id := range strings.Lines(ids.String()) {
		testkit.Eventually(t, func() error {
			a, err := admin.try("GET", "/api/v1/user/"+strings.TrimSpace(id), nil)
			if err == nil && a.status != http.StatusNotFound {
				err = fmt.Errorf("the profile of a deleted account = %d", a.status)
			}
			return err
		})
	}
	wantImport("3 created, 0 existing, 0 refused")
	wantImport("0 created, 3 existing, 0 refused")
	for i, c := range clients {
		me := c.login(emails[i], goodPassword)
		if strings.Contains(ids.String(), me.ID) {
			t.Errorf("the id %s is used again", me.ID)
		}
		c.do(http.StatusOK, "GET /api/v1/user/me", nil, nil)
		c.do(http.StatusAccepted, "POST /api/v1/auth/forgot-password", object{"email": emails[i]}, nil)
		awaitLinkTo(t, emails[i], "auth/reset-password")
		if i > 0 {
			continue
		}
		if mapping, err := os.ReadFile(file + ".ids"); err != nil || string(mapping) != oldID+","+me.ID+"\n" {
			t.Errorf("the file of ids = %q, %v", mapping, err)
		}
	}
}

// TestKeyCommands rotates the signing key of the running stack. Earlier tokens stay valid.
func TestKeyCommands(t *testing.T) {
	t.Parallel()
	c := newClient(t)
	c.signup(newEmail())
	stdout, stderr, code := command(t, "auth-service", "keys", "rotate", "-alg", "EdDSA")
	if code != 0 || !strings.HasPrefix(stdout, "key ") {
		t.Fatalf("rotate = %d %s\n%s", code, stdout, stderr)
	}
	kid := strings.Fields(stdout)[1]
	stdout, _, code = command(t, "auth-service", "keys", "list")
	if code != 0 || !strings.Contains(stdout, kid) || !strings.Contains(stdout, "active") || !strings.Contains(stdout, "scheduled") {
		t.Fatalf("list = %d\n%s", code, stdout)
	}
	testkit.Eventually(t, func() error {
		var set struct{ Keys []struct{ Kid string } }
		if err := getJSON(t, c.gateway+"/.well-known/jwks.json", &set); err != nil {
			return err
		}
		for _, k := range set.Keys {
			if k.Kid == kid {
				return nil
			}
		}
		return fmt.Errorf("%s is not published", kid)
	})
	c.do(http.StatusOK, "GET /api/v1/user/me", nil, nil)
	if stdout, stderr, code = command(t, "auth-service", "keys", "retire", kid); code != 0 {
		t.Errorf("retire = %d %s\n%s", code, stdout, stderr)
	}
	if _, stderr, code = command(t, "auth-service", "keys", "retire", "nonsense"); code != 1 || !strings.Contains(stderr, "unknown key") {
		t.Errorf("retire nonsense = %d\n%s", code, stderr)
	}
}
