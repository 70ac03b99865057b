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
	peppers Peppers
	slots   chan struct{}
	waiting atomic.Int64
	queue   int64
	dummy   string
}

// NewHasher returns a hasher that works on at most concurrency hashes at a time
// (the number of cores if zero) while at most queue others wait.
func NewHasher(params Params, peppers Peppers, concurrency, queue int) *Hasher {
	if concurrency <= 0 {
		concurrency = runtime.GOMAXPROCS(0)
	}
	h := &Hasher{params: params, peppers: peppers, slots: make(chan struct{}, concurrency), queue: int64(queue)}
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
		_, _, err := h.check(h.dummy, password)
		return false, false, err
	}
	if !strings.HasPrefix(hash, "$2") {
		return h.check(hash, password)
	}
	ok, stale, err = checkBcrypt(hash, password)
	if err == nil && !ok {
		// A cheap hash of an earlier system would answer sooner than the hash of
		// nobody, and so tell that there is an account.
		_, _, err = h.check(h.dummy, password)
	}
	return ok, stale, err
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
	p, keyID := h.params, ""
	if len(h.peppers) > 0 {
		keyID = h.peppers[0].ID
		password = h.peppers[0].apply(password)
	}
	key := argon2.IDKey(password, salt, p.Passes, p.MemoryKiB, p.Threads, keyBytes)
	b64 := base64.RawStdEncoding
	return fmt.Sprintf("$argon2id$v=%d$%s$%s$%s",
		argon2.Version, parsed{params: p, keyID: keyID}.costs(), b64.EncodeToString(salt), b64.EncodeToString(key))
}

// check reports whether password fits hash, and whether Hash would make it the
// same way today.
func (h *Hasher) check(hash, password string) (ok, stale bool, err error) {
	parsed, err := parse(hash)
	if err != nil {
		return false, false, err
	}
	secret, current := []byte(password), ""
	if len(h.peppers) > 0 {
		current = h.peppers[0].ID
	}
	if parsed.keyID != "" {
		pepper, ok := h.peppers.find(parsed.keyID)
		if !ok {
			return false, false, fmt.Errorf("%w: PASSWORD_PEPPERS has no %q", errHash, parsed.keyID)
		}
		secret = pepper.apply(secret)
	}
	p := parsed.params
	key := argon2.IDKey(secret, parsed.salt, p.Passes, p.MemoryKiB, p.Threads, uint32(len(parsed.key))) //nolint:gosec // parse bounds it.
	ok = subtle.ConstantTimeCompare(key, parsed.key) == 1
	return ok, p != h.params || parsed.keyID != current, nil
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
	keyID     string // of the pepper, or empty
	salt, key []byte
}

func (p parsed) costs() string {
	costs := fmt.Sprintf("m=%d,t=%d,p=%d", p.params.MemoryKiB, p.params.Passes, p.params.Threads)
	if p.keyID != "" {
		costs += ",keyid=" + p.keyID
	}
	return costs
}

var errHash = errors.New("password hash is not understood")

// CheckHash says why Verify could never take hash, or returns nil.
func CheckHash(hash string) error {
	if strings.HasPrefix(hash, "$2") {
		if _, err := bcrypt.Cost([]byte(hash)); err != nil || len(hash) != bcryptHashBytes {
			return errHash
		}
		return nil
	}
	_, err := parse(hash)
	return err
}

// bcryptHashBytes is how long the text of a bcrypt hash is.
const bcryptHashBytes = 60

// parse reads a PHC string of Argon2id.
func parse(hash string) (parsed, error) {
	parts := strings.Split(hash, "$")
	if len(parts) != 6 || parts[0] != "" || parts[1] != "argon2id" || parts[2] != fmt.Sprintf("v=%d", argon2.Version) {
		return parsed{}, errHash
	}
	var p parsed
	costs, keyID, _ := strings.Cut(parts[3], ",keyid=")
	n, err := fmt.Sscanf(costs, "m=%d,t=%d,p=%d", &p.params.MemoryKiB, &p.params.Passes, &p.params.Threads)
	p.keyID = keyID
	if err != nil || n != 3 || parts[3] != p.costs() {
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
