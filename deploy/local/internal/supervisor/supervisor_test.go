package supervisor_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/headgate/headgate/deploy/local/internal/supervisor"
	"github.com/headgate/headgate/pkg/localserver/child"
)

// roleVariable is set if this binary runs as a program to supervise.
const roleVariable = "SUPERVISOR_TEST_ROLE"

func TestMain(m *testing.M) {
	terminated := make(chan os.Signal, 1)
	switch os.Getenv(roleVariable) {
	case "":
		os.Exit(m.Run())
	case "serve":
		signal.Notify(terminated, syscall.SIGTERM)
		fmt.Println("serving")
		<-terminated
		fmt.Println("bye")
	case "stubborn":
		signal.Ignore(syscall.SIGTERM)
		fmt.Println("serving")
		select {}
	case "fail":
		fmt.Println("cannot start: no such table")
		os.Exit(7)
	}
}

// output is the output of a program.
type output struct {
	mu   sync.Mutex
	text bytes.Buffer
	more chan struct{}
}

func newOutput() *output { return &output{more: make(chan struct{}, 100)} }

func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.text.Write(b)
	select {
	case o.more <- struct{}{}:
	default:
	}
	return len(b), nil
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

// wait returns when the text has been printed n times.
func (o *output) wait(t *testing.T, text string, n int) {
	t.Helper()
	deadline := time.After(time.Minute)
	for strings.Count(o.String(), text) < n {
		select {
		case <-o.more:
		case <-deadline:
			t.Fatalf("%q was not printed %d times:\n%s", text, n, o)
		}
	}
}

func program(t *testing.T, name, role string, out *output) supervisor.Unit {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return supervisor.Unit{
		Name: name,
		Tail: func() []string { return strings.Split(strings.TrimSpace(out.String()), "\n") },
		Start: func(context.Context) (supervisor.Process, error) {
			cmd := exec.Command(self)
			cmd.Env = append(os.Environ(), roleVariable+"="+role)
			cmd.Stdout = out
			return child.Start(cmd, child.Signals{})
		},
		Ready: func(context.Context) error {
			if !strings.Contains(out.String(), "serving") {
				return errors.New("not yet")
			}
			return nil
		},
	}
}

func start(t *testing.T, opts supervisor.Options, units ...supervisor.Unit) *supervisor.Supervisor {
	t.Helper()
	opts.FirstBackoff = time.Millisecond
	s := supervisor.Start(t.Context(), units, opts)
	t.Cleanup(func() { stop(t, s, time.Minute) })
	return s
}

func stop(t *testing.T, s *supervisor.Supervisor, timeout time.Duration) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	s.Stop(ctx)
}

func gone(pid int) bool { return errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) }

func TestProgramsAreStoppedGracefully(t *testing.T) {
	t.Parallel()
	one, two := newOutput(), newOutput()
	s := start(t, supervisor.Options{}, program(t, "one", "serve", one), program(t, "two", "serve", two))
	if err := s.Ready(t.Context()); err != nil {
		t.Fatalf("Ready() = %v", err)
	}
	pids := s.Pids()
	if len(pids) != 2 {
		t.Errorf("Pids() = %v, want two", pids)
	}
	stop(t, s, time.Minute)
	for name, pid := range pids {
		if !gone(pid) {
			t.Errorf("%s is still running", name)
		}
	}
	if !strings.Contains(one.String(), "bye") || !strings.Contains(two.String(), "bye") {
		t.Errorf("the programs got no signal: %q, %q", one, two)
	}
	if left := s.Pids(); len(left) != 0 {
		t.Errorf("Pids() after Stop = %v, want none", left)
	}
}

func TestProgramThatDiesIsRestarted(t *testing.T) {
	t.Parallel()
	out, log := newOutput(), newOutput()
	changed := make(chan struct{}, 10)
	s := start(t, supervisor.Options{Log: log, Changed: func() { changed <- struct{}{} }}, program(t, "mail", "serve", out))
	if err := s.Ready(t.Context()); err != nil {
		t.Fatalf("Ready() = %v", err)
	}
	<-changed
	for n := range 5 { // More often than Options.Starts allows before the first readiness.
		before := s.Pids()["mail"]
		if err := syscall.Kill(before, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		out.wait(t, "serving", n+2)
		<-changed
		if now := s.Pids()["mail"]; now == before || now == 0 {
			t.Errorf("pid = %d, want another than %d", now, before)
		}
	}
	log.wait(t, "mail ended: signal: killed; restarting in", 5)
}

func TestProgramThatNeverStartsIsGivenUp(t *testing.T) {
	t.Parallel()
	good, bad := newOutput(), newOutput()
	s := start(t, supervisor.Options{}, program(t, "good", "serve", good), program(t, "bad", "fail", bad))
	err := s.Ready(t.Context())
	gaveUp, ok := errors.AsType[*supervisor.GaveUpError](err)
	if !ok || gaveUp.Name != "bad" {
		t.Fatalf("Ready() = %v, want that bad did not start", err)
	}
	for _, want := range []string{"exit status 7", "3 times", "cannot start: no such table"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("error %q does not say %q", err, want)
		}
	}
	if n := strings.Count(bad.String(), "cannot start"); n != 3 {
		t.Errorf("bad was started %d times, want 3", n)
	}
	good.wait(t, "serving", 1)
	pid := s.Pids()["good"]
	stop(t, s, time.Minute)
	if pid != 0 && !gone(pid) {
		t.Error("good is still running")
	}
}

func TestProgramThatIsNeverReadyIsGivenUp(t *testing.T) {
	t.Parallel()
	unit := program(t, "slow", "serve", newOutput())
	unit.Ready = func(context.Context) error { return errors.New("never") }
	s := start(t, supervisor.Options{ReadyTimeout: 200 * time.Millisecond}, unit)
	err := s.Ready(t.Context())
	if err == nil || !strings.Contains(err.Error(), "slow did not start: it was not ready within 200ms") {
		t.Errorf("Ready() = %v, want that slow was not ready", err)
	}
}

func TestProgramThatIgnoresTheSignalIsKilled(t *testing.T) {
	t.Parallel()
	out := newOutput()
	s := start(t, supervisor.Options{}, program(t, "stubborn", "stubborn", out))
	if err := s.Ready(t.Context()); err != nil {
		t.Fatalf("Ready() = %v", err)
	}
	pid := s.Pids()["stubborn"]
	stop(t, s, 100*time.Millisecond)
	if !gone(pid) {
		t.Error("it is still running")
	}
}

func TestReadyEndsWithItsContext(t *testing.T) {
	t.Parallel()
	unit := program(t, "slow", "serve", newOutput())
	unit.Ready = func(context.Context) error { return errors.New("never") }
	s := start(t, supervisor.Options{}, unit)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Ready(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("Ready() = %v, want that it was canceled", err)
	}
}

func TestMissingProgramIsGivenUp(t *testing.T) {
	t.Parallel()
	s := start(t, supervisor.Options{}, supervisor.Unit{Name: "none", Start: func(context.Context) (supervisor.Process, error) {
		return child.Start(exec.Command(filepath.Join(t.TempDir(), "none")), child.Signals{})
	}})
	if err := s.Ready(t.Context()); err == nil || !strings.Contains(err.Error(), "no such file") {
		t.Errorf("Ready() = %v, want that there is no such file", err)
	}
}
