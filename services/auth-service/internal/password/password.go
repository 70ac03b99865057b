// Package password hashes and checks passwords. Hashing is expensive, so it runs in a
// bounded pool, if possible of worker processes, which leaves the service responsive.
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

// ErrBusy says that too many passwords are waiting to be hashed.
var ErrBusy = problem.New(problem.Unavailable, "busy", "Too many people are signing in. Try again shortly.").WithRetryAfter(2 * time.Second)

// queueTimeout is shorter than the timeout of the gateway, so that a client that waits
// too long gets a Retry-After.
const queueTimeout = 8 * time.Second

// Config configures a Hasher.
type Config struct {
	Params      Params  // of Argon2id
	BcryptCost  int     // If it is not 0, new hashes are bcrypt hashes of this cost, without pepper.
	Peppers     Peppers // of Argon2id
	Concurrency int     // passwords hashed at a time; the number of cores if 0
	Queue       int     // passwords that may wait

	// Worker returns a command that runs Work. There is a process for each concurrent
	// hash. If Worker is nil, this process hashes.
	Worker func() *exec.Cmd
}

// Hasher hashes and checks passwords. It is safe for concurrent use.
type Hasher struct {
	localEngine
	queue   int64
	engines chan engine // idle ones
	waiting atomic.Int64
	highest atomic.Int64 // bcrypt cost that is stored
}

// NewHasher returns a hasher. It must be closed if it has workers.
func NewHasher(cfg Config) *Hasher {
	if cfg.Concurrency <= 0 {
		cfg.Concurrency = runtime.GOMAXPROCS(0) // It respects the CPU limit of a container.
	}
	h := &Hasher{localEngine: localEngine{cfg}, queue: int64(cfg.Queue), engines: make(chan engine, cfg.Concurrency)}
	for range cfg.Concurrency {
		if cfg.Worker == nil {
			h.engines <- h.localEngine
		} else {
			h.engines <- &worker{command: cfg.Worker, cfg: cfg}
		}
	}
	h.SetHighestBcryptCost(cfg.BcryptCost)
	return h
}

// Close waits for passwords that are being hashed and stops the workers. The hasher
// cannot be used afterwards.
func (h *Hasher) Close() {
	for range cap(h.engines) {
		(<-h.engines).close()
	}
}

// SetHighestBcryptCost sets the highest cost of the stored bcrypt hashes. Every mismatch
// then takes as long as one with such a hash.
func (h *Hasher) SetHighestBcryptCost(bcryptCost int) {
	h.highest.Store(int64(max(min(bcryptCost, maxEvenCost), h.cfg.BcryptCost)))
}

// Hash returns the hash of a password that Normalize accepts and that has at most
// MaxBytes when normalized. It fails with ErrBusy or with the error of ctx.
func (h *Hasher) Hash(ctx context.Context, password string) (string, error) {
	r, err := h.do(ctx, job{Password: password})
	return r.Hash, err
}

// Verify reports whether a password that Normalize accepts matches hash, and whether
// hash is stale: of another algorithm or cost than new hashes. Nothing matches an empty
// hash. A mismatch takes the same time for every hash. It fails with ErrBusy, with the
// error of ctx, or if hash is malformed.
func (h *Hasher) Verify(ctx context.Context, hash, password string) (ok, stale bool, err error) {
	r, err := h.do(ctx, job{Verify: true, Hash: hash, Password: password, EvenCost: int(h.highest.Load())})
	return r.OK, r.Stale, err
}

func (h *Hasher) do(ctx context.Context, j job) (result, error) {
	e, err := h.acquire(ctx)
	if err != nil {
		return result{}, err
	}
	defer func() { h.engines <- e }()
	r, err := e.do(j)
	if err == nil && r.Error != "" {
		err = errors.New(r.Error)
	}
	return r, err
}

// acquire waits for an idle engine.
func (h *Hasher) acquire(ctx context.Context) (engine, error) {
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
	timeout := time.NewTimer(queueTimeout)
	defer timeout.Stop()
	select {
	case e := <-h.engines:
		return e, nil
	case <-timeout.C:
		return nil, ErrBusy
	case <-ctx.Done():
		return nil, fmt.Errorf("wait to hash: %w", ctx.Err())
	}
}
