package testkit

import (
	"context"
	"io/fs"
	"maps"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/headgate/headgate/pkg/postgres"
)

// Copy is a copy of a database with some schemas, as an operator has it. It needs the
// client programs of Postgres.
type Copy struct {
	t    testing.TB
	file string
}

// NewCopy copies a new database with the schemas.
func NewCopy(t testing.TB, schemas ...postgres.Schema) Copy {
	t.Helper()
	c := Copy{t, filepath.Join(t.TempDir(), "copy.dump")}
	client(t, "pg_dump", "--format=custom", "--file="+c.file, DatabaseURL(t, schemas...))
	return c
}

// Restore restores the copy, or the part that a flag such as --section=data names, into the
// database.
func (c Copy) Restore(url, part string) {
	c.t.Helper()
	client(c.t, "pg_restore", part, "--exit-on-error", "--single-transaction", "--no-owner", "--dbname="+url, c.file)
}

// restrict matches the lines of a dump that contain a random number.
var restrict = regexp.MustCompile(`(?m)^\\(un)?restrict .*$`)

// Dump returns all that the database contains, as text.
func Dump(t testing.TB, url string) string {
	t.Helper()
	return restrict.ReplaceAllString(client(t, "pg_dump", url), "")
}

func client(t testing.TB, program string, args ...string) string {
	t.Helper()
	out, err := exec.CommandContext(context.Background(), program, args...).CombinedOutput() //nolint:gosec // The programs are constants of this file.
	if err != nil {
		t.Fatalf("%s %q: %v (apt install postgresql-client)\n%s", program, args, err, out)
	}
	return string(out)
}

// ChangeDatabase executes the statements, which are separated by semicolons, in the database.
func ChangeDatabase(t testing.TB, url, statements string) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	if _, err := conn.Exec(t.Context(), statements); err != nil {
		t.Fatalf("%s: %v", statements, err)
	}
}

// Commands are commands of a program that work on the database of its service.
type Commands struct {
	Environment map[string]string
	Schemas     []postgres.Schema // of the service
	Exit        map[string]int    // by command: the exit code if the database is not ready for it
}

// WantNoMigration fails the test unless the commands refuse a database that is empty, older
// than their release or half restored, say what to do, and change nothing. A restore must
// succeed although they were run meanwhile. They must accept a later release's database.
func (c Commands) WantNoMigration(t *testing.T) {
	t.Helper()
	oldest := c.Schemas[0]
	older := append([]postgres.Schema{beforeLast(t, oldest)}, c.Schemas[1:]...)
	t.Run("empty", func(t *testing.T) {
		t.Parallel()
		c.wantRefused(t, DatabaseURL(t), "database is not migrated: ")
	})
	t.Run("older", func(t *testing.T) {
		t.Parallel()
		c.wantRefused(t, DatabaseURL(t, older...), "database is older than this release: ")
	})
	t.Run("being restored", func(t *testing.T) {
		t.Parallel()
		url, complete := DatabaseURL(t), NewCopy(t, c.Schemas...)
		complete.Restore(url, "--section=pre-data")
		c.wantRefused(t, url, "database is incomplete: ")
		complete.Restore(url, "--section=data")
		c.wantRefused(t, url, "database is incomplete: ")
		complete.Restore(url, "--section=post-data")
		c.wantAccepted(t, url)
	})
	t.Run("newer", func(t *testing.T) {
		t.Parallel()
		url := DatabaseURL(t, c.Schemas...)
		ChangeDatabase(t, url, `INSERT INTO schema_`+oldest.Name+` (version_id, is_applied) VALUES (99999, true)`)
		c.wantAccepted(t, url)
	})
}

func beforeLast(t *testing.T, schema postgres.Schema) postgres.Schema {
	t.Helper()
	names, err := fs.Glob(schema.Files, "*.sql")
	if err != nil || len(names) < 2 {
		t.Fatalf("migrations of %s: %q, %v", schema.Name, names, err)
	}
	version, _, _ := strings.Cut(names[len(names)-2], "_")
	return Until(t, schema, version)
}

func (c Commands) wantRefused(t *testing.T, url, reason string) {
	t.Helper()
	before := Dump(t, url)
	for command, want := range c.Exit {
		out, errs, code := c.run(t, url, command)
		if code != want || out != "" || !strings.Contains(errs, reason) || !strings.Contains(errs, "the restore has ended") {
			t.Errorf("%s = %q %q, exit code %d, want %d and %q", command, out, errs, code, want, reason)
		}
	}
	if after := Dump(t, url); after != before {
		t.Errorf("the commands have changed the database from\n%s\nto\n%s", before, after)
	}
}

func (c Commands) wantAccepted(t *testing.T, url string) {
	t.Helper()
	for command := range c.Exit {
		if _, errs, code := c.run(t, url, command); strings.Contains(errs, "the restore has ended") {
			t.Errorf("%s = %q, exit code %d", command, errs, code)
		}
	}
}

func (c Commands) run(t *testing.T, url, command string) (stdout, stderr string, code int) {
	t.Helper()
	environment := maps.Clone(c.Environment)
	environment["DATABASE_URL"] = url
	return RunProgram(t, environment, strings.Fields(command)...)
}
