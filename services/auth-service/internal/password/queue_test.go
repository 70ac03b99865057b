package password_test

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/headgate/headgate/services/auth-service/internal/password"
)

// slow are costs at which a hash takes long enough for others to wait for it.
var slow = password.Params{MemoryKiB: 512, Passes: 16, Threads: 1}

// confirmations confirms the password of n accounts, one time after the other, until the
// test ends or stop is called. It returns once each account was confirmed.
func confirmations(t *testing.T, h *password.Hasher, n int) (confirmed *atomic.Int64, stop func()) {
	t.Helper()
	confirmed = &atomic.Int64{}
	ctx, cancel := context.WithCancel(t.Context())
	var running, first sync.WaitGroup
	first.Add(n)
	for i := range n {
		running.Go(func() {
			once := sync.OnceFunc(first.Done)
			defer once()
			for ctx.Err() == nil {
				if _, err := h.For(fmt.Sprint("account ", i)).Hash(ctx, "correct horse"); err == nil {
					confirmed.Add(1)
				} else if !errors.Is(err, context.Canceled) && !errors.Is(err, password.ErrBusy) { // busy: on a busy machine
					t.Errorf("Hash = %v", err)
				}
				once()
			}
		})
	}
	first.Wait()
	stop = func() { cancel(); running.Wait() }
	t.Cleanup(stop)
	return confirmed, stop
}

// SEC-104: while signed-in users confirm their passwords as fast as they can, a sign-in
// waits for at most one of them, and waiting sign-ins are served three times as often.
func TestSEC104SignInsAreNotStarved(t *testing.T) {
	t.Parallel()
	for _, engines := range []int{1, 2} {
		t.Run(fmt.Sprint(engines, " at a time"), func(t *testing.T) {
			t.Parallel()
			h := password.NewHasher(password.Config{Params: slow, Concurrency: engines, Queue: 100})
			confirmed, stop := confirmations(t, h, 10)

			before := confirmed.Load()
			const signIns = 12
			var waiting sync.WaitGroup
			for range signIns {
				waiting.Go(func() {
					_, err := h.Hash(t.Context(), "correct horse")
					for errors.Is(err, password.ErrBusy) { // on a busy machine
						_, err = h.Hash(t.Context(), "correct horse")
					}
					if err != nil {
						t.Errorf("Hash of a sign-in = %v", err)
					}
				})
			}
			waiting.Wait()
			// One before each third sign-in, and those in flight at the beginning and the end.
			if n := confirmed.Load() - before; n > signIns/3+2 {
				t.Errorf("%d confirmations were served before %d sign-ins", n, signIns)
			}
			stop()
		})
	}
}

// SEC-104: sign-ins do not starve confirmations either.
func TestSEC104ConfirmationsHaveAShare(t *testing.T) {
	t.Parallel()
	h := password.NewHasher(password.Config{Params: slow, Concurrency: 1, Queue: 100})
	ctx, cancel := context.WithCancel(t.Context())
	var running, full sync.WaitGroup
	defer running.Wait()
	defer cancel()
	var signIns atomic.Int64
	full.Add(20)
	for range 20 {
		running.Go(func() {
			once := sync.OnceFunc(full.Done)
			for ctx.Err() == nil {
				_, _ = h.Hash(ctx, "correct horse") // It fails when ctx ends.
				signIns.Add(1)
				once()
			}
		})
	}
	full.Wait()
	before := signIns.Load()
	if _, err := h.For("account").Hash(t.Context(), "correct horse"); err != nil {
		t.Fatal(err)
	}
	if n := signIns.Load() - before; n > 6 {
		t.Errorf("%d sign-ins were served before a confirmation, want about 3", n)
	}
}

// SEC-104: of one account, one password is hashed at a time, and a few more may wait.
func TestSEC104OnePasswordPerAccountAtATime(t *testing.T) {
	t.Parallel()
	var w workers
	h := password.NewHasher(password.Config{Params: slow, Concurrency: 4, Queue: 100, Worker: w.start})
	defer h.Close()
	results := make(chan error, 20)
	var running sync.WaitGroup
	for range cap(results) {
		running.Go(func() {
			_, err := h.For("account").Hash(t.Context(), "correct horse")
			results <- err
		})
	}
	running.Wait()
	close(results)
	done, busy := 0, 0
	for err := range results {
		switch {
		case err == nil:
			done++
		case errors.Is(err, password.ErrAccountBusy):
			busy++
		default:
			t.Errorf("Hash = %v", err)
		}
	}
	if done < 5 || busy == 0 {
		t.Errorf("%d hashed, %d busy; want 5 or more and some busy", done, busy)
	}
	if len(w.all) != 1 {
		t.Errorf("%d processes hashed for one account", len(w.all))
	}
}

// SEC-104: a request whose client is gone leaves its line at once.
func TestSEC104AbandonedRequestsLeaveTheirLine(t *testing.T) {
	t.Parallel()
	var w workers
	busy, goOn := make(chan struct{}), make(chan struct{})
	h := password.NewHasher(password.Config{Params: cheap, Concurrency: 1, Queue: 1, Worker: func() *exec.Cmd {
		close(busy)
		<-goOn
		return w.start()
	}})
	defer h.Close()
	var running sync.WaitGroup
	running.Go(func() {
		if _, err := h.Hash(t.Context(), "correct horse"); err != nil {
			t.Errorf("Hash = %v", err)
		}
	})
	<-busy
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	for _, line := range []*password.Hasher{h, h.For("account")} {
		for range 5 {
			if _, err := line.Hash(gone, "correct horse"); !errors.Is(err, context.Canceled) {
				t.Errorf("Hash = %v, want %v", err, context.Canceled)
			}
		}
	}
	close(goOn)
	running.Wait()
}
