// Package password turns passwords into hashes and back into a yes or no,
// without letting that starve everything else: hashing runs in a bounded pool.
package password

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/crypto/argon2"
	"golang.org/x/crypto/bcrypt"

	"github.com/headgate/headgate/pkg/problem"
)

// Params are the costs of Argon2id (RFC 9106).
type Params struct {
	MemoryKiB uint32
	Passes    uint32
	Threads   uint8
}

// Standard are the costs that OWASP recommends.
var Standard = Params{MemoryKiB: 19 << 10, Passes: 2, Threads: 1}

const (
	saltBytes = 16
	keyBytes  = 32
	// What a stored hash may ask of us, lest an imported one exhaust the machine.
	maxMemoryKiB = 1 << 20
	maxPasses    = 64
	// bcrypt reads no more and would accept any ending.
	bcryptBytes = 72
)

// ErrBusy says that more hashes are waiting than the machine can make soon.
var ErrBusy = problem.New(problem.Unavailable, "busy", "Too many sign-ins at once. Try again shortly.").WithRetryAfter(2 * time.Second)

// Hasher makes and checks hashes. It is safe for concurrent use.
type Hasher struct {
	params  Params
	slots   chan struct{}
	waiting atomic.Int64
	queue   int64
	dummy   string
}

// NewHasher returns a hasher that works on at most concurrency hashes at a time
// (the number of cores if zero) while at most queue others wait.
func NewHasher(params Params, concurrency, queue int) *Hasher {
	if concurrency <= 0 {
		concurrency = runtime.GOMAXPROCS(0)
	}
	h := &Hasher{params: params, slots: make(chan struct{}, concurrency), queue: int64(queue)}
	h.dummy = h.encode([]byte(rand.Text()), salt())
	return h
}

// Hash returns the PHC string of a password. It fails with ErrBusy or with the
// error of ctx.
func (h *Hasher) Hash(ctx context.Context, password string) (string, error) {
	if err := h.enter(ctx); err != nil {
		return "", err
	}
	defer h.leave()
	return h.encode([]byte(password), salt()), nil
}

// Verify reports whether password fits hash, and whether hash should be made
// anew because it is of another kind or cost than those that Hash makes. An
// empty hash fits nothing, in the time that a real one takes. It fails with
// ErrBusy, with the error of ctx, or if hash is none.
func (h *Hasher) Verify(ctx context.Context, hash, password string) (ok, stale bool, err error) {
	if err := h.enter(ctx); err != nil {
		return false, false, err
	}
	defer h.leave()
	if hash == "" {
		_, err := h.check(h.dummy, password)
		return false, false, err
	}
	if strings.HasPrefix(hash, "$2") {
		return checkBcrypt(hash, password)
	}
	ok, err = h.check(hash, password)
	if err != nil {
		return false, false, err
	}
	parsed, err := parse(hash)
	if err != nil {
		return false, false, err
	}
	return ok, parsed.params != h.params, nil
}

func (h *Hasher) enter(ctx context.Context) error {
	select {
	case h.slots <- struct{}{}:
		return nil
	default:
	}
	if h.waiting.Add(1) > h.queue {
		h.waiting.Add(-1)
		return ErrBusy
	}
	defer h.waiting.Add(-1)
	select {
	case h.slots <- struct{}{}:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("wait to hash: %w", ctx.Err())
	}
}

func (h *Hasher) leave() { <-h.slots }

func salt() []byte {
	s := make([]byte, saltBytes)
	rand.Read(s)
	return s
}

func (h *Hasher) encode(password, salt []byte) string {
	p := h.params
	key := argon2.IDKey(password, salt, p.Passes, p.MemoryKiB, p.Threads, keyBytes)
	b64 := base64.RawStdEncoding
	return fmt.Sprintf("$argon2id$v=%d$m=%d,t=%d,p=%d$%s$%s",
		argon2.Version, p.MemoryKiB, p.Passes, p.Threads, b64.EncodeToString(salt), b64.EncodeToString(key))
}

func (h *Hasher) check(hash, password string) (bool, error) {
	parsed, err := parse(hash)
	if err != nil {
		return false, err
	}
	p := parsed.params
	key := argon2.IDKey([]byte(password), parsed.salt, p.Passes, p.MemoryKiB, p.Threads, uint32(len(parsed.key))) //nolint:gosec // parse bounds it.
	return subtle.ConstantTimeCompare(key, parsed.key) == 1, nil
}

// checkBcrypt refuses what bcrypt would cut off (TRAPS T12).
func checkBcrypt(hash, password string) (ok, stale bool, err error) {
	if len(password) > bcryptBytes || strings.ContainsRune(password, 0) {
		return false, false, nil
	}
	err = bcrypt.CompareHashAndPassword([]byte(hash), []byte(password))
	switch {
	case err == nil:
		return true, true, nil
	case errors.Is(err, bcrypt.ErrMismatchedHashAndPassword):
		return false, true, nil
	}
	return false, false, fmt.Errorf("check bcrypt hash: %w", err)
}

type parsed struct {
	params    Params
	salt, key []byte
}

var errHash = errors.New("password hash is not understood")

// parse reads a PHC string of Argon2id.
func parse(hash string) (parsed, error) {
	parts := strings.Split(hash, "$")
	if len(parts) != 6 || parts[0] != "" || parts[1] != "argon2id" || parts[2] != fmt.Sprintf("v=%d", argon2.Version) {
		return parsed{}, errHash
	}
	var p parsed
	n, err := fmt.Sscanf(parts[3], "m=%d,t=%d,p=%d", &p.params.MemoryKiB, &p.params.Passes, &p.params.Threads)
	if err != nil || n != 3 || parts[3] != fmt.Sprintf("m=%d,t=%d,p=%d", p.params.MemoryKiB, p.params.Passes, p.params.Threads) {
		return parsed{}, errHash
	}
	if p.params.MemoryKiB < 8 || p.params.MemoryKiB > maxMemoryKiB || p.params.Passes < 1 || p.params.Passes > maxPasses || p.params.Threads < 1 {
		return parsed{}, errHash
	}
	b64 := base64.RawStdEncoding.Strict()
	var saltErr, keyErr error
	p.salt, saltErr = b64.DecodeString(parts[4])
	p.key, keyErr = b64.DecodeString(parts[5])
	if saltErr != nil || keyErr != nil || len(p.salt) < 8 || len(p.salt) > 64 || len(p.key) < 16 || len(p.key) > 64 {
		return parsed{}, errHash
	}
	return p, nil
}
