package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// SEC-146: a line that cannot be done stops no other: every other id is recorded in one run,
// and the command reports the line and fails. The file may begin with a byte order mark.
func TestSEC146DeleteUsersGoesOn(t *testing.T) {
	t.Parallel()
	s := startImporting(t)
	const ann, root, nobody, bob = "01926f39-0000-7000-8000-000000000001", "01926f39-0000-7000-8000-000000000002", "01926f39-0000-7000-8000-000000000003", "01926f39-0000-7000-8000-000000000004"
	users, ids := filepath.Join(t.TempDir(), "users"), filepath.Join(t.TempDir(), "ids")
	write := func(file string, lines ...string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(strings.Join(lines, "\r\n")), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(users, `{"id":"`+ann+`","email":"ann@example.org","name":"Ann"}`, `{"id":"`+root+`","email":"root@example.org","name":"Root","role":"admin"}`, `{"id":"`+bob+`","email":"bob@example.org","name":"Bob"}`)
	s.users(0, "import", users)
	write(ids, "\ufeff"+ann, root, "ann@example.org", "", nobody, bob)
	for _, want := range []string{"accounts deleted: 2; ids that will not be used again: 3\n", "accounts deleted: 0; ids that will not be used again: 3\n"} {
		stdout, stderr := s.users(1, "delete", ids)
		if stdout != want {
			t.Errorf("stdout = %q, want %q", stdout, want)
		}
		for _, part := range []string{"line 2: account " + root + ": ", "This is the last active administrator", `line 3: `, "lines refused: 2"} {
			if !strings.Contains(stderr, part) {
				t.Errorf("want %q in\n%s", part, stderr)
			}
		}
	}
	if stdout, _ := s.users(0, "export"); !strings.Contains(stdout, root) || strings.Count(stdout, "\n") != 1 {
		t.Errorf("the export has not the administrator alone:\n%s", stdout)
	}
	write(ids, nobody)
	if stdout, _ := s.users(0, "delete", ids); stdout != "accounts deleted: 0; ids that will not be used again: 1\n" {
		t.Errorf("stdout = %q", stdout)
	}
}
