package tests

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"

	"github.com/redis/go-redis/v9"

	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/pkg/testkit"
)

// command runs a service's program as an operator does, on the database of the running
// system, and returns its output and exit code.
func command(t *testing.T, service string, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	f := facts(t)
	cmd := exec.CommandContext(t.Context(), program(t, service), args...)
	cmd.Env = append(environment(), "ENV=development", "LOCAL_DIR="+system.dir, "DATABASE_URL="+f.DatabaseURLs[strings.TrimSuffix(service, "-service")],
		"REDIS_URL="+f.RedisURL, "JWKS_URL=http://127.0.0.1:1/", "SMTP_URL="+f.SMTPURL, "MAIL_FROM=a@example.com", "PUBLIC_BASE_URL=http://localhost")
	var out, errs strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		code = exit.ExitCode()
	} else if err != nil {
		t.Fatal(err)
	}
	return out.String(), errs.String(), code
}

var building sync.Mutex

// program builds a service once and returns its path.
func program(t *testing.T, service string) string {
	t.Helper()
	building.Lock()
	defer building.Unlock()
	binary := filepath.Join(system.dir, "command-"+service)
	if _, err := os.Stat(binary); err == nil {
		return binary
	}
	build := exec.CommandContext(t.Context(), "go", "build", "-o", binary, "./services/"+service)
	build.Dir, build.Env = root, environment()
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build %s: %v\n%s", service, err, out)
	}
	return binary
}

// TestDeadLetterCommands lists, shows and discards an entry that cannot be decoded.
func TestDeadLetterCommands(t *testing.T) {
	options, err := redis.ParseURL(facts(t).RedisURL)
	if err != nil {
		t.Fatal(err)
	}
	direct := redis.NewClient(options)
	defer direct.Close()
	if err := direct.XAdd(t.Context(), &redis.XAddArgs{Stream: string(event.Email), Values: []string{"junk", "for-the-shell"}}).Err(); err != nil {
		t.Fatal(err)
	}
	id := ""
	testkit.Eventually(t, func() error {
		out, stderr, code := command(t, "email-service", "dead-letters", "list")
		if code != 0 {
			t.Fatalf("list = %d %s", code, stderr)
		}
		for _, line := range strings.Split(out, "\n")[1:] {
			found := regexp.MustCompile(`^[0-9a-f-]{36}`).FindString(line)
			if shown, _, _ := command(t, "email-service", "dead-letters", "show", found); found != "" && strings.Contains(shown, "for-the-shell") {
				id = found
				return nil
			}
		}
		return fmt.Errorf("the dead letter is not listed:\n%s", out)
	})
	for _, tc := range []struct {
		args []string
		code int
		want string
	}{
		{[]string{"replay", id}, 1, "dead_letter_not_replayable"},
		{[]string{"replay"}, 1, "usage"},
		{[]string{"replay", "-max", "10", "-dry-run", "-type", "no.such.v1"}, 0, "dry run: matching: 0, to be replayed: 0, not replayable: 0"},
		{[]string{"replay", id, "-dry-run"}, 1, "usage"},
		{[]string{"discard", id}, 1, "reason"},
		{[]string{"discard", id, "-reason", "made by a test"}, 0, "discarded " + id},
		{[]string{"discard", id, "-reason", "again"}, 1, "dead_letter_closed"},
		{[]string{"show", id}, 0, "made by a test"},
		{[]string{"list", "-status", "discarded"}, 0, id},
		{[]string{"list", "-status", "all"}, 0, id},
		{[]string{"list", "-status", "bogus"}, 1, "Unknown status"},
		{[]string{"list", "-type", ""}, 1, "-type: empty value"},
		{[]string{"list", "-max", "0"}, 1, "usage"},
		{[]string{"replay", "-max", "10", "-type", ""}, 1, "-type: empty value"},
		{[]string{"show", "junk"}, 1, "invalid dead letter id"},
		{[]string{"burn"}, 2, "usage"},
	} {
		out, stderr, code := command(t, "email-service", append([]string{"dead-letters"}, tc.args...)...)
		if code != tc.code || !strings.Contains(out+stderr, tc.want) {
			t.Errorf("dead-letters %v = %d, want %d with %q:\n%s%s", tc.args, code, tc.code, tc.want, out, stderr)
		}
	}
}

// TestGaps: the consumers of a working system have everything, so the command prints nothing.
func TestGaps(t *testing.T) {
	c := newClient(t)
	me := c.signup(newEmail())
	wantAudit(t, me.ID, map[string]int{"user.signed_up": 1, "email.sent": 1})
	for _, service := range []string{"audit-service", "user-service", "email-service"} {
		testkit.Eventually(t, func() error {
			out, stderr, code := command(t, service, "gaps")
			if code != 0 || out != "" {
				return fmt.Errorf("%s gaps = %d\n%s%s", service, code, out, stderr)
			}
			return nil
		})
	}
}
