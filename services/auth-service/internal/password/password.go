// Package password turns passwords into hashes and back into a yes or no,
// without letting that starve everything else: hashing runs in a bounded pool.
package password

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync/atomic"
	"time"

	"github.com/headgate/headgate/pkg/problem"
)

// ErrBusy says that more hashes are waiting than the machine can make soon.
var ErrBusy = problem.New(problem.Unavailable, "busy", "Too many sign-ins at once. Try again shortly.").WithRetryAfter(2 * time.Second)

// longestWait is shorter than the gateway's patience, so that who waits too long
// is told when to come again.
const longestWait = 8 * time.Second

var errHash = errors.New("password hash is not understood")

// Config is what a Hasher is made of.
type Config struct {
	Params      Params  // of Argon2id
	BcryptCost  int     // If it is not 0, new hashes are of bcrypt at this cost, without pepper.
	Peppers     Peppers // of Argon2id
	Concurrency int     // hashes at a time; the number of cores if 0
	Queue       int     // hashes that may wait
}

// Hasher makes and checks hashes. It is safe for concurrent use.
type Hasher struct {
	cfg     Config
	slots   chan struct{}
	waiting atomic.Int64
	highest atomic.Int64 // cost of the bcrypt hashes around
}

// NewHasher returns a hasher.
func NewHasher(cfg Config) *Hasher {
	if cfg.Concurrency <= 0 {
		cfg.Concurrency = runtime.GOMAXPROCS(0)
	}
	h := &Hasher{cfg: cfg, slots: make(chan struct{}, cfg.Concurrency)}
	h.Expect(cfg.BcryptCost)
	return h
}

// MaxBytes is how long a normalized password may be.
func (h *Hasher) MaxBytes() int {
	if h.cfg.BcryptCost > 0 {
		return bcryptBytes
	}
	return MaxBytes
}

// Expect tells that there are hashes of bcrypt with this cost.
func (h *Hasher) Expect(bcryptCost int) {
	h.highest.Store(int64(max(min(bcryptCost, maxEvenCost), h.cfg.BcryptCost)))
}

// Hash returns the hash of a password that Normalize takes, normalized, of at most
// MaxBytes. It fails with ErrBusy or with the error of ctx.
func (h *Hasher) Hash(ctx context.Context, password string) (string, error) {
	password = normal(password)
	if err := h.enter(ctx); err != nil {
		return "", err
	}
	defer h.leave()
	if h.cfg.BcryptCost > 0 {
		return h.encodeBcrypt(password)
	}
	return h.encodeArgon2(password), nil
}

// Verify reports whether a password that Normalize takes fits hash, and whether
// hash should be made anew because it is of another kind or cost than those that
// Hash makes. An empty hash fits nothing. That nothing fits takes the same time for every hash.
// It fails with ErrBusy, with the error of ctx, or if hash is none.
func (h *Hasher) Verify(ctx context.Context, hash, typed string) (ok, stale bool, err error) {
	password := normal(typed)
	if err := h.enter(ctx); err != nil {
		return false, false, err
	}
	defer h.leave()
	spent, argon := 0, false
	switch {
	case hash == "":
	case strings.HasPrefix(hash, "$2"):
		ok, stale, spent, err = h.checkBcrypt(hash, password)
		if err == nil && !ok && typed != password {
			// An earlier system hashed what was typed.
			ok, stale, spent, err = h.checkBcrypt(hash, typed)
		}
	default:
		ok, stale, err = h.checkArgon2(hash, password)
		argon = true
	}
	if err == nil && !ok {
		h.even(password, spent, argon)
	}
	// One that is too long for the new kind keeps its hash.
	return ok, stale && len(password) <= h.MaxBytes(), err
}

// even makes every failure cost one Argon2id and one bcrypt of the highest cost
// around. Otherwise the time would tell the accounts of an earlier system, whose
// hashes are of another kind, from addresses without an account (SEC-26). Costs
// over 12 are not made up for: they would let a few strangers occupy the machine.
func (h *Hasher) even(password string, spent int, argon bool) {
	if !argon {
		h.encodeArgon2(password)
	}
	spendBcrypt(int(h.highest.Load()), spent)
}

func (h *Hasher) enter(ctx context.Context) error {
	select {
	case h.slots <- struct{}{}:
		return nil
	default:
	}
	if h.waiting.Add(1) > int64(h.cfg.Queue) {
		h.waiting.Add(-1)
		return ErrBusy
	}
	defer h.waiting.Add(-1)
	patience := time.NewTimer(longestWait)
	defer patience.Stop()
	select {
	case h.slots <- struct{}{}:
		return nil
	case <-patience.C:
		return ErrBusy
	case <-ctx.Done():
		return fmt.Errorf("wait to hash: %w", ctx.Err())
	}
}

func (h *Hasher) leave() { <-h.slots }

// CheckHash says why Verify could never take hash, or returns nil.
func (h *Hasher) CheckHash(hash string) error {
	if strings.HasPrefix(hash, "$2") {
		cost, err := bcryptCost(hash)
		if err == nil && cost > maxBcryptCost {
			err = fmt.Errorf("%w: its cost is higher than %d", errHash, maxBcryptCost)
		}
		return err
	}
	parsed, err := parse(hash)
	if err == nil && parsed.keyID != "" {
		_, err = h.pepper(parsed.keyID)
	}
	return err
}
