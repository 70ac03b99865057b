package tests

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/headgate/headgate/pkg/localserver/child"
	"github.com/headgate/headgate/pkg/testkit"
	"github.com/headgate/headgate/tests/internal/workspace"
)

// stack describes the running system; it is read from .local/stack.json.
type stack struct {
	GatewayURL   string            `json:"gatewayUrl"`
	MailboxURL   string            `json:"mailboxUrl"`
	Admin        credentials       `json:"admin"`
	ServiceURLs  map[string]string `json:"serviceUrls"`
	DatabaseURLs map[string]string `json:"databaseUrls"`
	RedisURL     string            `json:"redisUrl"`
	SMTPURL      string            `json:"smtpUrl"`
	PIDs         map[string]int    `json:"pids"`
}

type credentials struct {
	Email    string `json:"email"`
	Password string `json:"password"`
}

// system is the stack that all tests share. Each test uses its own accounts.
var system *launched

type launched struct {
	dir     string
	process *child.Process
	app     *httptest.Server // an empty page on another origin, which may use passkeys
}

// appOrigin returns the origin of app. It has the host of the gateway and another port.
func (l *launched) appOrigin() string { return strings.Replace(l.app.URL, "127.0.0.1", "localhost", 1) }

const (
	root         = ".."
	startTimeout = 15 * time.Minute // with an empty build cache on two busy cores
)

func TestMain(m *testing.M) {
	os.Exit(run(m))
}

func run(m *testing.M) (code int) {
	if _, err := workspace.Root(); errors.Is(err, workspace.ErrPartial) {
		fmt.Fprintln(os.Stderr, "tests: skipped, because this tree does not have all services")
		return 0
	}
	dir, err := os.MkdirTemp("", "headgate-system-")
	if err != nil {
		fmt.Fprintln(os.Stderr, "tests:", err)
		return 1
	}
	defer os.RemoveAll(dir)
	// If the tests run as root, Postgres runs as another user, who must reach its folder.
	if err := os.Chmod(dir, 0o711); err != nil {
		fmt.Fprintln(os.Stderr, "tests:", err)
		return 1
	}
	system, err = launch(dir)
	if err != nil {
		fmt.Fprintln(os.Stderr, "tests:", err)
		return 1
	}
	defer func() {
		if found, err := system.leaked(); err != nil || len(found) > 0 {
			fmt.Fprintln(os.Stderr, "tests: SEC-20: the logs of the stack contain", found, err)
			code = max(code, 1)
		}
		if err := contractKept(); err != nil {
			fmt.Fprintln(os.Stderr, "tests:", err)
			code = max(code, 1)
		}
		if err := system.stop(); err != nil {
			fmt.Fprintln(os.Stderr, "tests:", err)
			code = max(code, 1)
		}
	}()
	return m.Run()
}

// launch builds and starts the stack as `make run` does, on free ports.
func launch(dir string) (*launched, error) {
	launcher := filepath.Join(dir, "launcher")
	build := exec.Command("go", "build", "-o", launcher, "./deploy/local")
	build.Dir, build.Env = root, environment()
	if out, err := build.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("build the launcher: %w\n%s", err, out)
	}
	log, err := os.Create(filepath.Join(dir, "output.log"))
	if err != nil {
		return nil, fmt.Errorf("start the stack: %w", err)
	}
	l := &launched{dir: filepath.Join(dir, "stack"), app: httptest.NewServer(http.NotFoundHandler())}
	up := exec.Command(launcher, "up", "--dir", l.dir)
	up.Dir, up.Stdout, up.Stderr = root, log, log
	up.Env = append(environment(),
		"GATEWAY_PORT=0",
		"SIGNUP_RATE_LIMIT=10000/1m",
		"GENERAL_RATE_LIMIT=100000/1m",
		"GENERAL_IP_RATE_LIMIT=100000/1m",
		"LOGIN_IP_RATE_LIMIT=10000/1m",
		"REFRESH_IP_RATE_LIMIT=10000/1m",
		"MAIL_RATE_LIMIT=10000/1m",
		"LINKS_RATE_LIMIT=10000/1m",
		"MFA_RATE_LIMIT=10000/1m",
		"PASSKEYS_RATE_LIMIT=10000/1m",
		"EXPORT_RATE_LIMIT=10000/1m",
		"NETWORK_MAIL_LIMIT=0",
		"WEBAUTHN_ORIGINS="+l.appOrigin(),
	)
	if l.process, err = child.Start(up, child.Signals{Orphan: syscall.SIGTERM}); err != nil {
		return nil, fmt.Errorf("start the stack: %w", err)
	}
	if err := l.await(); err != nil {
		text, _ := os.ReadFile(log.Name()) // Without the log, the error is still reported.
		return nil, errors.Join(fmt.Errorf("%w\n%s", err, text), l.stop())
	}
	return l, nil
}

// environment is the environment of this process with the workspace enabled, and without
// the servers of other tests. A login may wait longer than usual for its hash on a busy machine.
func environment() []string {
	absolute, err := filepath.Abs(filepath.Join(root, "go.work"))
	if err != nil {
		absolute = ""
	}
	return append(os.Environ(), "GOWORK="+absolute, "DATABASE_URL=", "REDIS_URL=", "ACCOUNT_DELETION_GRACE=0", "UPSTREAM_TIMEOUT=20s")
}

func (l *launched) await() error {
	deadline := time.NewTimer(startTimeout)
	defer deadline.Stop()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		if _, err := l.read(); err == nil {
			return nil
		}
		select {
		case <-l.process.Done():
			return fmt.Errorf("the stack ended during start: %w", l.process.Err())
		case <-deadline.C:
			return fmt.Errorf("the stack was not ready within %s", startTimeout)
		case <-tick.C:
		}
	}
}

func (l *launched) read() (stack, error) {
	var s stack
	data, err := os.ReadFile(filepath.Join(l.dir, "stack.json"))
	if err != nil {
		return s, err
	}
	return s, json.Unmarshal(data, &s)
}

// stop stops the stack as Ctrl-C does and checks that no process and no file is left.
func (l *launched) stop() error {
	defer l.app.Close()
	facts, readErr := l.read()
	ctx, cancel := context.WithTimeout(context.Background(), testkit.Timeout)
	defer cancel()
	if err := l.process.Stop(ctx); err != nil {
		return fmt.Errorf("stop the stack: %w", err)
	}
	if err := l.process.Err(); err != nil {
		return fmt.Errorf("the stack did not stop cleanly: %w", err)
	}
	if errors.Is(readErr, os.ErrNotExist) {
		return nil // It ended before it was ready, so there is nothing to check.
	}
	if readErr != nil {
		return fmt.Errorf("read stack.json: %w", readErr)
	}
	for name, pid := range facts.PIDs {
		if syscall.Kill(pid, 0) == nil {
			return fmt.Errorf("%s (pid %d) is still running", name, pid)
		}
	}
	if _, err := l.read(); !errors.Is(err, os.ErrNotExist) {
		return errors.New("stack.json was not removed")
	}
	return nil
}

// facts returns the current state of the stack; pids change when a child is restarted.
func facts(t *testing.T) stack {
	t.Helper()
	workspace.NotCached()
	s, err := system.read()
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func readAll(ctx context.Context, r io.ReadCloser) ([]byte, error) {
	defer r.Close()
	data, err := io.ReadAll(r)
	return data, errors.Join(err, ctx.Err())
}
