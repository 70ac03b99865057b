package main

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/headgate/headgate/pkg/testkit"
)

// importedPassword is the password of all hashes in testdata.
const importedPassword = "Zebra-crossing 91"

// importing is auth-service with an empty database, to import into.
type importing struct {
	*testkit.Program
	t           *testing.T
	environment map[string]string
}

func startImporting(t *testing.T, variables ...string) importing {
	t.Helper()
	environment := map[string]string{
		"DATABASE_URL": testkit.DatabaseURL(t), "REDIS_URL": testkit.RedisURL(t), "PUBLIC_BASE_URL": "http://localhost:8080",
		"REFRESH_TOKEN_SECRET": strings.Repeat("refresh0123456789-", 3),
		"ENCRYPTION_KEY":       strings.Repeat("encrypt0123456789-", 3),
		"EVENT_SEAL_KEY":       strings.Repeat("sealing0123456789-", 3),
	}
	for i := 0; i < len(variables); i += 2 {
		environment[variables[i]] = variables[i+1]
	}
	return importing{testkit.StartProgram(t, environment), t, environment}
}

// users runs a command and returns what it prints to both outputs.
func (s importing) users(code int, args ...string) (stdout, stderr string) {
	s.t.Helper()
	stdout, stderr, got := testkit.RunProgram(s.t, s.environment, append([]string{"users"}, args...)...)
	if got != code {
		s.t.Fatalf("users %v = %d, want %d\n%s%s", args, got, code, stdout, stderr)
	}
	return stdout, stderr
}

// wantLogin signs in to an imported account, twice: the second time its hash is a new one.
func (s importing) wantLogin(email, password string) {
	s.t.Helper()
	for range 2 {
		if status := s.login(email, password); status != http.StatusOK {
			s.t.Errorf("login of %s = %d, want 200", email, status)
		}
	}
}

// login returns the status of a sign-in. On a busy machine it tries again.
func (s importing) login(email, password string) (status int) {
	s.t.Helper()
	testkit.Eventually(s.t, func() error {
		body := strings.NewReader(fmt.Sprintf(`{"email":%q,"password":%q}`, email, password))
		req, err := http.NewRequestWithContext(s.t.Context(), http.MethodPost, s.URL+"/api/v1/auth/login", body)
		if err != nil {
			s.t.Fatal(err)
		}
		req.Header.Set("Content-Type", "application/json")
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			return err
		}
		defer res.Body.Close()
		if status = res.StatusCode; status == http.StatusServiceUnavailable {
			return errors.New("the service is busy")
		}
		return nil
	})
	return status
}

// copyOf copies a file of testdata to where an import may write beside it.
func copyOf(t *testing.T, name string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(file, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// A file with a byte order mark, CRLF, a blank line, addresses that differ in case, and
// hashes whose parameters are in another order than ours. Every refusal names line and address.
func TestImportOfARoughFile(t *testing.T) {
	t.Parallel()
	s := startImporting(t)
	file := copyOf(t, "import.ndjson")
	for _, want := range []string{"5 created, 0 existing, 2 refused", "0 created, 5 existing, 2 refused"} {
		if _, stderr := s.users(1, "import", file); !strings.Contains(stderr, want) {
			t.Errorf("want %q in\n%s", want, stderr)
		}
		report, err := os.ReadFile(file + ".refused")
		lines := strings.Split(string(report), "\n")
		if err != nil || len(lines) != 3 || !strings.Contains(string(report), `{"line":4,"email":"ann@example.org","reason":"email: same address as line 3"}`) ||
			!strings.Contains(string(report), `{"line":7,"email":"dear@example.org","reason":`) || !strings.Contains(string(report), "passwordHash: Unsupported") {
			t.Errorf("report = %v\n%s", err, report)
		}
	}
	s.wantLogin("node@example.org", importedPassword)
	s.wantLogin("phc@example.org", importedPassword)
	if status := s.login("phc@example.org", "Zebra-crossing 92"); status != http.StatusUnauthorized {
		t.Errorf("login with another password = %d, want 401", status)
	}
	for _, email := range []string{"bom@example.org", "old@example.org"} {
		if stdout, _ := s.users(0, "export"); !strings.Contains(stdout, `"email":"`+email+`"`) {
			t.Errorf("the export does not have %s", email)
		}
	}
}

// Of two lines with the same address or id the second is refused, however far apart they are,
// and however often the file is imported. So is one with the address of an existing account.
func TestImportOfRepeatedAddresses(t *testing.T) {
	t.Parallel()
	s := startImporting(t)
	if status, data := s.Call("POST", "/api/v1/auth/signup", `{"email":"eve@example.org","password":"`+importedPassword+`","name":"Eve"}`, ""); status != 201 {
		t.Fatalf("signup = %d %s", status, data)
	}
	const id = "01926f39-0000-7000-8000-000000000001"
	lines := []string{
		`{"email":"Ann@example.org","name":"Ann A"}`,
		`{"id":"` + id + `","email":"bob@example.org","name":"Bob"}`,
	}
	for n := range importBatch {
		lines = append(lines, fmt.Sprintf(`{"email":"user%d@example.org","name":"User"}`, n))
	}
	last := len(lines)
	lines = append(lines,
		`{"email":"ann@EXAMPLE.org","name":"Ann B"}`,
		`{"email":"Ann@example.org","name":"Ann C","createdAt":"2020-02-03T04:05:06Z"}`,
		`{"id":"`+id+`","email":"bobby@example.org","name":"Bob"}`,
		`{"email":"EVE@example.org","name":"Eve"}`,
		`{"email":"mail@example.org","name":"Name","role":"god"}`,
		`{"email":"mail@example.org","Name":"Name"}`,
	)
	file := filepath.Join(t.TempDir(), "users.ndjson")
	if err := os.WriteFile(file, []byte(strings.Join(lines, "\n")), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"502 created, 0 existing, 6 refused", "0 created, 502 existing, 6 refused"} {
		if _, stderr := s.users(1, "import", file); !strings.Contains(stderr, want) {
			t.Errorf("want %q in\n%s", want, stderr)
		}
	}
	report, err := os.ReadFile(file + ".refused")
	if err != nil {
		t.Fatal(err)
	}
	for n, want := range []string{
		`"email":"ann@EXAMPLE.org","reason":"email: same address as line 1"`,
		`"email":"Ann@example.org","reason":"email: same address as line 1"`,
		`"email":"bobby@example.org","reason":"same id or address as line 2"`,
		`"email":"EVE@example.org","reason":"email: another account has this address"`,
		`"email":"mail@example.org","reason":"`,
		`"email":"mail@example.org","reason":"`,
	} {
		if want = fmt.Sprintf(`{"line":%d,`, last+1+n) + want; !strings.Contains(string(report), want) {
			t.Errorf("the report does not have\n%s\nbut\n%s", want, report)
		}
	}
}

// Refused lines are in the order of the file, with their addresses, whatever is wrong with them.
func TestImportReportsEveryRefusedLine(t *testing.T) {
	t.Parallel()
	s := startImporting(t)
	lines := []string{
		`{"sourceId":"auth0|1","email":"ann@example.org","name":"Ann"}`,
		`{"email":"ANN@example.org","name":"Ann"}`,
		`{"sourceId":"auth0|1","email":"bob@example.org","name":"Bob"}`,
		`{"email":"long@example.org","name":"` + strings.Repeat("x", maxLine) + `"}`,
		`{"id":"00000000-0000-0000-0000-000000000000","email":"nil@example.org","name":"Nil"}`,
		`{"email":"one@example.org","name":"One","createdAt":"0001-01-01T00:00:00Z"}`,
		`{"email":"json@example.org","name":"Json`,
	}
	file := filepath.Join(t.TempDir(), "users.ndjson")
	if err := os.WriteFile(file, []byte(strings.Join(lines, "\n")), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"1 created, 0 existing, 6 refused", "0 created, 1 existing, 6 refused"} {
		if _, stderr := s.users(1, "import", file); !strings.Contains(stderr, "] 100%  "+want) {
			t.Errorf("want %q in\n%s", want, stderr)
		}
	}
	report, err := os.ReadFile(file + ".refused")
	got := strings.Split(strings.TrimSpace(string(report)), "\n")
	if err != nil || len(got) != 6 {
		t.Fatalf("report = %v\n%s", err, report)
	}
	for n, want := range [][2]string{
		{"ANN@example.org", "email: same address as line 1"},
		{"bob@example.org", "sourceId: same id as line 1"},
		{"long@example.org", "line is longer than 64 KiB"},
		{"nil@example.org", "id: The nil UUID"},
		{"one@example.org", "createdAt: Year 1"},
		{"json@example.org", "invalid JSON at byte"},
	} {
		if !strings.HasPrefix(got[n], fmt.Sprintf(`{"line":%d,"email":%q,"reason":"`, n+2, want[0])) || !strings.Contains(got[n], want[1]) {
			t.Errorf("line %d = %s, want %q", n+2, got[n], want)
		}
	}
}
