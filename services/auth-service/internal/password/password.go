// Package password turns passwords into hashes and back into a yes or no,
// without letting that starve everything else: hashing runs in a bounded pool, of
// processes of their own if the program has them.
package password

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"runtime"
	"sync/atomic"
	"time"

	"github.com/headgate/headgate/pkg/problem"
)

// ErrBusy says that more hashes are waiting than the machine can make soon.
var ErrBusy = problem.New(problem.Unavailable, "busy", "Too many people are signing in. Try again shortly.").WithRetryAfter(2 * time.Second)

// longestWait is shorter than the gateway's patience, so that who waits too long
// is told when to come again.
const longestWait = 8 * time.Second

// Config is what a Hasher is made of.
type Config struct {
	Params      Params  // of Argon2id
	BcryptCost  int     // If it is not 0, new hashes are of bcrypt at this cost, without pepper.
	Peppers     Peppers // of Argon2id
	Concurrency int     // hashes at a time; the number of cores if 0
	Queue       int     // hashes that may wait

	// Worker returns a process that runs Work, for each hash at a time; hashes are
	// made in this process if it is nil.
	Worker func() *exec.Cmd
}

// Hasher makes and checks hashes. It is safe for concurrent use.
type Hasher struct {
	maker
	queue   int64
	engines chan engine // those that have nothing to do
	waiting atomic.Int64
	highest atomic.Int64 // cost of the bcrypt hashes around
}

// engine does one job at a time.
type engine interface {
	do(j job) (result, error)
	close()
}

// NewHasher returns a hasher, which is to be closed if it has workers.
func NewHasher(cfg Config) *Hasher {
	if cfg.Concurrency <= 0 {
		cfg.Concurrency = runtime.GOMAXPROCS(0) // It knows the limits of a container.
	}
	h := &Hasher{maker: maker{cfg}, queue: int64(cfg.Queue), engines: make(chan engine, cfg.Concurrency)}
	for range cfg.Concurrency {
		if cfg.Worker == nil {
			h.engines <- h.maker
		} else {
			h.engines <- &worker{command: cfg.Worker, maker: h.maker}
		}
	}
	h.Expect(cfg.BcryptCost)
	return h
}

// Close ends the workers once they have done what they are at. Nothing can be
// hashed afterwards.
func (h *Hasher) Close() {
	for range cap(h.engines) {
		(<-h.engines).close()
	}
}

// Expect tells that there are hashes of bcrypt with this cost.
func (h *Hasher) Expect(bcryptCost int) {
	h.highest.Store(int64(max(min(bcryptCost, maxEvenCost), h.cfg.BcryptCost)))
}

// Hash returns the hash of a password that Normalize takes, normalized, of at most
// MaxBytes. It fails with ErrBusy or with the error of ctx.
func (h *Hasher) Hash(ctx context.Context, password string) (string, error) {
	r, err := h.do(ctx, job{Password: password})
	return r.Hash, err
}

// Verify reports whether a password that Normalize takes fits hash, and whether
// hash should be made anew because it is of another kind or cost than those that
// Hash makes. An empty hash fits nothing. That nothing fits takes the same time for
// every hash. It fails with ErrBusy, with the error of ctx, or if hash is none.
func (h *Hasher) Verify(ctx context.Context, hash, password string) (ok, stale bool, err error) {
	r, err := h.do(ctx, job{Verify: true, Hash: hash, Password: password, Even: int(h.highest.Load())})
	return r.OK, r.Stale, err
}

func (h *Hasher) do(ctx context.Context, j job) (result, error) {
	e, err := h.enter(ctx)
	if err != nil {
		return result{}, err
	}
	defer func() { h.engines <- e }()
	r, err := e.do(j)
	if err == nil && r.Fault != "" {
		err = errors.New(r.Fault)
	}
	return r, err
}

// enter returns an engine that has nothing to do.
func (h *Hasher) enter(ctx context.Context) (engine, error) {
	select {
	case e := <-h.engines:
		return e, nil
	default:
	}
	if h.waiting.Add(1) > h.queue {
		h.waiting.Add(-1)
		return nil, ErrBusy
	}
	defer h.waiting.Add(-1)
	patience := time.NewTimer(longestWait)
	defer patience.Stop()
	select {
	case e := <-h.engines:
		return e, nil
	case <-patience.C:
		return nil, ErrBusy
	case <-ctx.Done():
		return nil, fmt.Errorf("wait to hash: %w", ctx.Err())
	}
}
