package stack

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/headgate/headgate/pkg/localserver/child"
)

// launched is a launcher that runs as a process.
type launched struct {
	t       *testing.T
	dir     string
	process *child.Process
	log     *buffer
}

type buffer struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

// folder returns a new data folder, which Reset deletes after the test.
func folder(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "headgate-stack-") //nolint:usetesting // The user of Postgres cannot reach t.TempDir.
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o711); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := Reset(context.Background(), dir, io.Discard); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// launch starts the launcher with fake services.
func launch(t *testing.T, dir string, variables ...string) *launched {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	bin := t.TempDir()
	for _, name := range []string{"local", "gateway", "auth-service", "user-service", "email-service", "audit-service"} {
		if err := os.Symlink(self, filepath.Join(bin, name)); err != nil {
			t.Fatal(err)
		}
	}
	l := &launched{t: t, dir: dir, log: &buffer{}}
	cmd := exec.Command(filepath.Join(bin, "local"))
	cmd.Env = append(os.Environ(), "TEST_DIR="+dir, "GATEWAY_PORT=0", "DATABASE_URL=", "REDIS_URL=")
	cmd.Env = append(cmd.Env, variables...)
	cmd.Stdout, cmd.Stderr = l.log, l.log
	if l.process, err = child.Start(cmd, child.Signals{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		l.stop()
		if t.Failed() {
			t.Logf("log of the launcher:\n%s", l.log)
		}
	})
	return l
}

func (l *launched) stop() {
	l.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := l.process.Stop(ctx); err != nil {
		l.t.Error(err)
	}
}

// facts waits until stack.json exists and has the wanted content.
func (l *launched) facts(wanted func(Facts) bool) Facts {
	l.t.Helper()
	deadline := time.After(time.Minute)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		var f Facts
		data, err := os.ReadFile(filepath.Join(l.dir, factsName))
		if err == nil && json.Unmarshal(data, &f) == nil && wanted(f) {
			return f
		}
		select {
		case <-tick.C:
		case <-l.process.Done():
			l.t.Fatalf("the launcher ended with %s", l.process.Reason())
		case <-deadline:
			l.t.Fatal("stack.json was not written")
		}
	}
}

func (l *launched) ready() Facts {
	l.t.Helper()
	return l.facts(func(Facts) bool { return true })
}

func get(t *testing.T, url string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, string(body)
}

func query(t *testing.T, url, sql string) error {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		return err
	}
	defer conn.Close(context.Background())
	_, err = conn.Exec(t.Context(), sql)
	return err
}

func gone(pid int) bool { return errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) }

func TestStackRunsAndLeavesNothing(t *testing.T) {
	t.Parallel()
	dir := folder(t)
	first := launch(t, dir, "LOGIN_RATE_LIMIT=7/1m", "HTTP_ADDR=:1", "ADMIN_EMAIL=root@example.com")
	facts := first.ready()

	if len(facts.Pids) != 7 {
		t.Errorf("pids = %v, want five services and two servers", facts.Pids)
	}
	info, err := os.Stat(filepath.Join(dir, factsName))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%s has mode %v, %v, want 0600", factsName, info.Mode(), err)
	}
	wantEnvironments(t, dir, facts)
	if _, body := get(t, facts.GatewayURL+"/health"); !strings.Contains(body, `"status":"ok"`) {
		t.Errorf("stack.json was written when /health was %s", body)
	}
	if status, _ := get(t, facts.MailboxURL+"/api/v1/messages"); status != http.StatusOK {
		t.Errorf("mailbox = %d", status)
	}
	if err := query(t, facts.DatabaseURLs["email"], "INSERT INTO kept VALUES (now())"); err != nil {
		t.Errorf("own database: %v", err)
	}
	other := strings.Replace(facts.DatabaseURLs["email"], "/headgate_email?", "/headgate_auth?", 1)
	if err := query(t, other, "SELECT"); err == nil || !strings.Contains(err.Error(), "permission denied") {
		t.Errorf("another service's database = %v, want permission denied", err)
	}

	first.stop()
	if first.process.Err() != nil {
		t.Errorf("after SIGTERM the launcher ended with %s, want status 0", first.process.Reason())
	}
	for name, pid := range facts.Pids {
		if !gone(pid) {
			t.Errorf("%s is still running", name)
		}
	}
	if n := strings.Count(first.log.String(), "| drained"); n != 5 {
		t.Errorf("%d services were stopped gracefully, want 5", n)
	}
	if _, err := os.Stat(filepath.Join(dir, factsName)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%s still exists: %v", factsName, err)
	}

	again := launch(t, dir).ready()
	if err := query(t, again.DatabaseURLs["email"], "DO $$ BEGIN ASSERT (SELECT count(*) = 1 FROM kept); END $$"); err != nil {
		t.Errorf("after a second start: %v", err)
	}
	if again.Admin.Password != facts.Admin.Password {
		t.Error("the admin's password has changed")
	}
}

// wantEnvironments checks the variables of the services of a stack in dir whose
// LOGIN_RATE_LIMIT and ADMIN_EMAIL the test has set.
func wantEnvironments(t *testing.T, dir string, facts Facts) {
	t.Helper()
	for name, want := range map[string]string{
		"LOGIN_RATE_LIMIT": "7/1m", "ENV": "development", "LOCAL_DIR": dir, "INSTANCE_ID": "gateway-1", "REDIS_URL": facts.RedisURL,
		"HTTP_ADDR": strings.Replace(strings.TrimPrefix(facts.GatewayURL, "http://"), "localhost", loopback, 1),
	} {
		if _, got := get(t, facts.GatewayURL+"/env/"+name); got != want {
			t.Errorf("gateway has %s=%q, want %q", name, got, want)
		}
	}
	if status, _ := get(t, facts.GatewayURL+"/env/DATABASE_URL"); status != http.StatusNotFound {
		t.Error("the gateway has a DATABASE_URL")
	}
	_, auth := get(t, facts.GatewayURL+"/env/AUTH_URL")
	_, email := get(t, facts.GatewayURL+"/env/EMAIL_URL")
	if _, got := get(t, email+"/env/JWKS_URL"); got != auth+"/.well-known/jwks.json" {
		t.Errorf("email-service has JWKS_URL=%q, want that of %s", got, auth)
	}
	if _, got := get(t, email+"/env/SMTP_URL"); got != facts.SMTPURL {
		t.Errorf("email-service has SMTP_URL=%q, want %q", got, facts.SMTPURL)
	}
	if _, got := get(t, auth+"/env/ADMIN_PASSWORD"); got != facts.Admin.Password || len(got) < 20 || facts.Admin.Email != "root@example.com" {
		t.Errorf("auth-service has ADMIN_PASSWORD=%q, stack.json %+v", got, facts.Admin)
	}
}

func TestKilledProcessesAreRestarted(t *testing.T) {
	t.Parallel()
	l := launch(t, folder(t))
	facts := l.ready()
	for _, name := range []string{"email-service", "redis", "postgres"} {
		if err := syscall.Kill(facts.Pids[name], syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		l.facts(func(f Facts) bool { return f.Pids[name] != 0 && f.Pids[name] != facts.Pids[name] })
		if !strings.Contains(l.log.String(), name+" ended: signal: killed; restarting in") {
			t.Errorf("the log does not report that %s was killed", name)
		}
	}
	if err := query(t, facts.DatabaseURLs["auth"], "SELECT FROM kept"); err != nil {
		t.Errorf("Postgres at its old address: %v", err)
	}
}

func TestServiceThatCannotStartStopsEverything(t *testing.T) {
	t.Parallel()
	l := launch(t, folder(t), "TEST_BROKEN=user-service")
	<-l.process.Done()
	if reason := l.process.Reason(); reason != "exit status 1" {
		t.Errorf("the launcher ended with %s, want status 1", reason)
	}
	for _, want := range []string{"user-service did not start", "3 times", "    check config: TOKEN_SECRET: want 32 bytes"} {
		if !strings.Contains(l.log.String(), want) {
			t.Errorf("the log does not contain %q", want)
		}
	}
}

func TestCrashedLauncherLeavesNothing(t *testing.T) {
	t.Parallel()
	dir := folder(t)
	crashed := launch(t, dir)
	facts := crashed.ready()
	crashed.process.Kill()
	next := launch(t, dir).facts(func(f Facts) bool { return f.GatewayURL != facts.GatewayURL })
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(time.Minute)
	for name, pid := range facts.Pids {
		for !gone(pid) { // A dead process exists until its new parent has waited for it.
			select {
			case <-tick.C:
			case <-deadline:
				t.Fatalf("%s of the crashed launcher is still running", name)
			}
		}
	}
	if err := query(t, next.DatabaseURLs["auth"], "SELECT FROM kept"); err != nil {
		t.Errorf("data: %v", err)
	}
}

func TestOneStackForAFolder(t *testing.T) {
	t.Parallel()
	dir := folder(t)
	first := launch(t, dir)
	facts := first.ready()
	second := launch(t, dir)
	<-second.process.Done()
	if !strings.Contains(second.log.String(), "is already running in "+dir) || second.process.Err() == nil {
		t.Errorf("second launcher: %s, log %s", second.process.Reason(), second.log)
	}
	if err := Reset(t.Context(), dir, io.Discard); err == nil {
		t.Error("Reset() = nil while the stack runs, want an error")
	}
	if status, _ := get(t, facts.GatewayURL+"/env/ENV"); status != http.StatusOK {
		t.Error("the first stack stopped working")
	}
	first.stop()
	if err := Reset(t.Context(), dir, io.Discard); err != nil {
		t.Errorf("Reset() = %v", err)
	}
	if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("after Reset() the folder still exists: %v", err)
	}
}

func TestServersOfTheCallerAreUsed(t *testing.T) {
	t.Parallel()
	host := launch(t, folder(t)).ready()
	// The owner of one database of the first stack may not create roles for the second.
	l := launch(t, folder(t), "DATABASE_URL="+host.DatabaseURLs["auth"], "REDIS_URL="+host.RedisURL)
	<-l.process.Done()
	if !strings.Contains(l.log.String(), "make database headgate_auth") || !strings.Contains(l.log.String(), "permission denied") {
		t.Errorf("without the right to create roles: %s", l.log)
	}

	admin := filepath.Join(host.dir(t), "postgres", "password")
	password, err := os.ReadFile(admin)
	if err != nil {
		t.Fatal(err)
	}
	url, err := databaseURL(host.DatabaseURLs["auth"], "postgres", strings.TrimSpace(string(password)))
	if err != nil {
		t.Fatal(err)
	}
	facts := launch(t, folder(t), "DATABASE_URL="+url, "REDIS_URL="+host.RedisURL).ready()
	if len(facts.Pids) != 5 || facts.RedisURL != host.RedisURL {
		t.Errorf("facts = %+v, want only services", facts)
	}
}

// dir returns the data folder of the stack, which the gateway has in its environment.
func (f Facts) dir(t *testing.T) string {
	t.Helper()
	_, dir := get(t, f.GatewayURL+"/env/LOCAL_DIR")
	return dir
}

func TestStopDuringStart(t *testing.T) {
	t.Parallel()
	dir := folder(t)
	l := launch(t, dir)
	deadline := time.After(time.Minute)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		if _, err := os.Stat(filepath.Join(dir, "postgres")); err == nil {
			break
		}
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatal("Postgres was not started")
		}
	}
	l.stop()
	if l.process.Err() != nil {
		t.Errorf("the launcher ended with %s, want status 0", l.process.Reason())
	}
	launch(t, dir).ready()
}
