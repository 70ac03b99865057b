// Package password hashes and checks passwords. Hashing is expensive, so it runs in a
// bounded pool, if possible of worker processes, which leaves the service responsive.
package password

import (
	"context"
	"errors"
	"os/exec"
	"runtime"
	"sync/atomic"
	"time"

	"github.com/headgate/headgate/pkg/problem"
	"github.com/headgate/headgate/pkg/service"
)

// ErrBusy says that too many passwords are waiting to be hashed.
var ErrBusy = problem.New(problem.Unavailable, "busy", "Too many people are signing in. Try again shortly.").WithRetryAfter(2 * time.Second)

// Config configures a Hasher.
type Config struct {
	Params      Params       // of Argon2id
	BcryptCost  int          // If it is not 0, new hashes are bcrypt hashes of this cost, without pepper.
	Peppers     service.Keys // of Argon2id
	Signers     service.Keys // of imported Firebase hashes, in base64
	Concurrency int          // passwords hashed at a time; the number of cores if 0
	Queue       int          // sign-ins that may wait, and as many confirmations

	// Worker returns a command that runs Work. There is a process for each concurrent
	// hash. If Worker is nil, this process hashes.
	Worker func() *exec.Cmd

	// spent is told of every computation of this process: its algorithm, and its cost in units
	// that are proportional to the time. It may be nil.
	spent func(algorithm string, cost int)
}

// spend tells cfg.spent of a computation that is about to begin.
func (cfg Config) spend(algorithm string, cost int) {
	if cfg.spent != nil {
		cfg.spent(algorithm, cost)
	}
}

// Hasher hashes and checks passwords: of people who sign up or in, unless it is For an
// account. It is safe for concurrent use.
type Hasher struct {
	*pool

	account string // that it is for, or empty
}

// pool is what the hashers of all accounts share.
type pool struct {
	localEngine

	queue  *queue
	stored atomic.Pointer[Costs] // the highest that are stored
}

// NewHasher returns a hasher. It must be closed if it has workers.
func NewHasher(cfg Config) *Hasher {
	if cfg.Concurrency <= 0 {
		cfg.Concurrency = runtime.GOMAXPROCS(0) // It respects the CPU limit of a container.
	}
	local := localEngine{cfg}
	engines := make([]engine, cfg.Concurrency)
	for i := range engines {
		engines[i] = local
		if cfg.Worker != nil {
			engines[i] = &worker{command: cfg.Worker, cfg: cfg}
		}
	}
	h := &Hasher{pool: &pool{localEngine: local, queue: newQueue(cfg.Queue, engines)}}
	h.SetStored(0, nil)
	return h
}

// For returns the hasher for confirmations: passwords that the owner of an account enters
// after proving to be its owner, by a session or a mailed link. Of each account one
// password is hashed at a time, and sign-ins are served first.
func (h *Hasher) For(account string) *Hasher { return &Hasher{pool: h.pool, account: account} }

// Close waits for passwords that are being hashed and stops the workers. The hasher
// cannot be used afterwards.
func (h *Hasher) Close() {
	for _, e := range h.queue.drain() {
		e.close()
	}
}

// SetStored says which hashes of earlier systems are stored: the highest cost of bcrypt, and
// the kinds and parameters of others. Every mismatch then takes as long as one with the most
// expensive of each kind; of bcrypt, up to cost 12.
func (h *Hasher) SetStored(bcryptCost int, parameters []string) {
	costs := Costs{Bcrypt: max(min(bcryptCost, maxEvenCost), h.cfg.BcryptCost), Iterations: map[string]int{}}
	for _, p := range parameters {
		costs.raise(p)
	}
	h.stored.Store(&costs)
}

// Hash returns the hash of a password that Normalize accepts and that has at most
// MaxBytes when normalized. It fails with ErrBusy, ErrAccountBusy or the error of ctx.
func (h *Hasher) Hash(ctx context.Context, password string) (string, error) {
	r, err := h.do(ctx, job{Password: password})
	return r.Hash, err
}

// Verify reports whether a password that Normalize accepts matches hash, and whether
// hash is stale: of another algorithm or cost than new hashes. Nothing matches an empty
// hash, or one whose costs are so high that CheckHash refuses it. A mismatch takes the same time
// for an empty hash, one with the costs of new hashes, and every hash of the kinds and costs
// that SetStored was told. Exceptions are imported hashes of bcrypt with a cost over 12, and of
// Argon2 with other costs than new hashes. It fails with ErrBusy, ErrAccountBusy, the error of ctx, or if hash is
// malformed.
func (h *Hasher) Verify(ctx context.Context, hash, password string) (ok, stale bool, err error) {
	r, err := h.do(ctx, job{Verify: true, Hash: hash, Password: password, Even: *h.stored.Load()})
	return r.OK, r.Stale, err
}

func (h *Hasher) do(ctx context.Context, j job) (result, error) {
	e, err := h.queue.acquire(ctx, h.account)
	if err != nil {
		return result{}, err
	}
	defer h.queue.release(h.account, e)
	r, err := e.do(j)
	if err == nil && r.Error != "" {
		err = errors.New(r.Error)
	}
	return r, err
}
