package password_test

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/headgate/headgate/pkg/service"
	"github.com/headgate/headgate/services/auth-service/internal/password"
)

// TestMain lets the test binary be a hash worker.
func TestMain(m *testing.M) {
	if len(os.Args) == 2 && os.Args[1] == "hash-worker" {
		if err := password.Work(os.Stdin, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// workers starts worker processes and keeps track of them.
type workers struct {
	mu  sync.Mutex
	all []*exec.Cmd
}

func (w *workers) start() *exec.Cmd {
	w.mu.Lock()
	defer w.mu.Unlock()
	cmd := exec.Command(os.Args[0], "hash-worker")
	w.all = append(w.all, cmd)
	return cmd
}

// Worker processes hash and check as this process does. The pepper is not in their
// arguments or environment, and a process that dies is replaced.
func TestWorkers(t *testing.T) {
	t.Parallel()
	const pepper = "k1:0123456789abcdefghijklmnopqrstuv"
	peppers, err := service.ParseKeys("PEPPERS", pepper)
	if err != nil {
		t.Fatal(err)
	}
	var w workers
	cfg := password.Config{Params: cheap, Peppers: peppers, Concurrency: 2, Queue: 100}
	here := password.NewHasher(cfg)
	cfg.Worker = w.start
	there := password.NewHasher(cfg)
	defer there.Close()

	check := func() {
		t.Helper()
		hash, err := there.Hash(t.Context(), "correct horse")
		if err != nil {
			t.Fatal(err)
		}
		for _, h := range []*password.Hasher{here, there} {
			if ok, stale, err := h.Verify(t.Context(), hash, "correct horse"); !ok || stale || err != nil {
				t.Errorf("Verify = %t, %t, %v", ok, stale, err)
			}
			if ok, _, err := h.Verify(t.Context(), hash, "another horse"); ok || err != nil {
				t.Errorf("Verify of another = %t, %v", ok, err)
			}
		}
	}
	var at sync.WaitGroup
	for range 20 {
		at.Go(check)
	}
	at.Wait()
	if ok, _, err := there.Verify(t.Context(), "no hash", "x"); ok || err == nil {
		t.Errorf("Verify of no hash = %t, %v", ok, err)
	}
	if len(w.all) == 0 || len(w.all) > 2 {
		t.Errorf("%d processes for 2 hashes at a time", len(w.all))
	}
	for _, cmd := range w.all {
		if strings.Contains(strings.Join(append(cmd.Args, cmd.Env...), " "), "0123456789") {
			t.Errorf("the pepper is among %q", cmd.Args)
		}
		if err := cmd.Process.Signal(syscall.SIGTERM); err != nil { // Workers ignore it: the service still waits for them.
			t.Fatal(err)
		}
	}
	check()
	for _, cmd := range w.all {
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
	}
	for range 4 {
		check()
	}
}

// A worker that does not start is an error of Hash.
func TestWorkersThatDoNotStart(t *testing.T) {
	t.Parallel()
	h := password.NewHasher(password.Config{Params: cheap, Concurrency: 1, Worker: func() *exec.Cmd { return exec.Command("/nowhere") }})
	defer h.Close()
	for range 2 {
		if _, err := h.Hash(t.Context(), "correct horse"); err == nil || !strings.Contains(err.Error(), "/nowhere") {
			t.Errorf("Hash = %v", err)
		}
	}
}
