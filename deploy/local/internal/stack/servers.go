package stack

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"

	"github.com/headgate/headgate/deploy/local/internal/console"
	"github.com/headgate/headgate/pkg/localserver"
)

// The variables with the URLs of the servers for tests.
const (
	testDatabase = "TEST_DATABASE_URL"
	testRedis    = "TEST_REDIS_URL"
)

// Servers runs the command with Postgres and Redis servers that keep no data, and returns its
// exit status. It starts no server whose URL is already in the environment. Signals are
// forwarded to the command.
func Servers(signals <-chan os.Signal, environ, command []string) (status int, err error) {
	dir, err := os.MkdirTemp("", "headgate-servers-")
	if err != nil {
		return 0, fmt.Errorf("create folder: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	if err := os.Chmod(dir, 0o711); err != nil { //nolint:gosec // The user of Postgres must reach its subfolder.
		return 0, fmt.Errorf("open folder: %w", err)
	}
	t := testServers{dir: dir, env: parseEnvironment(environ)}
	defer func() { err = errors.Join(err, t.stop()) }()
	if err := interruptible(signals, t.start); err != nil {
		return 0, err
	}
	return runFor(signals, t.env, command)
}

// interruptible runs f with a context that the first signal cancels.
func interruptible(signals <-chan os.Signal, f func(context.Context) error) error {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- f(ctx) }()
	select {
	case err := <-done:
		return err
	case sig := <-signals:
		cancel()
		return fmt.Errorf("stopped by signal %s: %w", sig, <-done)
	}
}

// testServers are the servers for a command.
type testServers struct {
	dir     string
	env     environment
	running []*localserver.Server
}

func (t *testServers) start(ctx context.Context) error {
	starts := map[string]startServer{}
	variables := map[string]string{localserver.Postgres: testDatabase, localserver.Redis: testRedis}
	if t.env[testDatabase] == "" {
		starts[localserver.Postgres] = localserver.StartPostgres
	}
	if t.env[testRedis] == "" {
		starts[localserver.Redis] = localserver.StartRedis
	}
	bin := t.env["HEADGATE_PG_BIN"]
	if missing := localserver.Missing(bin, slices.Sorted(maps.Keys(starts))...); len(missing) > 0 {
		if err := localserver.Install(ctx, os.Stderr, missing...); err != nil {
			return fmt.Errorf("install: %w", err)
		}
	}
	for name, start := range starts {
		server, err := start(ctx, localserver.Options{Dir: filepath.Join(t.dir, name), Bin: bin, Log: os.Stderr})
		if err != nil {
			return err
		}
		t.running = append(t.running, server)
		t.env[variables[name]] = server.URL
	}
	return nil
}

func (t *testServers) stop() error {
	ctx, cancel := context.WithTimeout(context.Background(), stopTimeout)
	defer cancel()
	var errs []error
	for _, server := range t.running {
		errs = append(errs, server.Stop(ctx))
	}
	return errors.Join(errs...)
}

// runFor runs the command in the terminal of this process.
func runFor(signals <-chan os.Signal, env environment, command []string) (int, error) {
	cmd := exec.Command(command[0], command[1:]...) //nolint:gosec,noctx // The user asked to run it; signals end it.
	cmd.Env = env.list()
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	if err := cmd.Start(); err != nil {
		return 0, fmt.Errorf("run %s: %w", command[0], err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	for {
		select {
		case sig := <-signals:
			// A terminal has sent its Ctrl-C to the command as well.
			if sig != syscall.SIGINT || !console.Terminal(os.Stdin) {
				_ = cmd.Process.Signal(sig) // It fails if the command has ended.
			}
		case err := <-ended:
			return status(err)
		}
	}
}

// status returns the exit status as a shell reports it.
func status(err error) (int, error) {
	exit, ok := errors.AsType[*exec.ExitError](err)
	if !ok {
		return 0, err
	}
	if wait, ok := exit.Sys().(syscall.WaitStatus); ok && wait.Signaled() {
		return 128 + int(wait.Signal()), nil
	}
	return exit.ExitCode(), nil
}
