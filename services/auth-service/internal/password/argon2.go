package password

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"

	"golang.org/x/crypto/argon2"

	"github.com/headgate/headgate/pkg/service"
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
	// The maximum costs of a stored hash, so that an imported one cannot exhaust the machine:
	// a login takes at most eight times as long as with Standard. Among what is allowed are
	// the second choice of RFC 9106 (64 MiB, 3 passes), all choices of OWASP, and the defaults
	// of PHP, Django and argon2-cffi.
	maxMemoryKiB = 128 << 10
	maxWork      = 8 * (19 << 10) * 2 // memory times passes
)

// affordable reports whether a hash of these costs may be computed. With less memory than
// RFC 9106, 3.1, demands, it would cost more than it says: each thread takes 8 KiB.
func (p Params) affordable() bool {
	return p.MemoryKiB >= 8*uint32(p.Threads) && p.MemoryKiB <= maxMemoryKiB && uint64(p.MemoryKiB)*uint64(p.Passes) <= maxWork
}

func (p Params) work() int { return int(p.MemoryKiB) * int(p.Passes) }

func salt() []byte {
	s := make([]byte, saltBytes)
	rand.Read(s)
	return s
}

// encodeArgon2 returns the PHC string of a password.
func (e localEngine) encodeArgon2(password string) string {
	p, secret, keyID := e.cfg.Params, []byte(password), ""
	if len(e.cfg.Peppers) > 0 {
		keyID = e.cfg.Peppers[0].ID
		secret = apply(e.cfg.Peppers[0], secret)
	}
	salt := salt()
	e.cfg.spend("argon2", p.work())
	key := argon2.IDKey(secret, salt, p.Passes, p.MemoryKiB, p.Threads, keyBytes)
	b64 := base64.RawStdEncoding
	return fmt.Sprintf("$argon2id$v=%d$%s$%s$%s",
		argon2.Version, parsed{params: p, keyID: keyID}.costs(), b64.EncodeToString(salt), b64.EncodeToString(key))
}

// checkArgon2 reports whether password matches hash, and whether hash is stale.
func (e localEngine) checkArgon2(hash, password string) (ok, stale bool, err error) {
	parsed, err := parse(hash)
	if err != nil {
		return false, false, err
	}
	secret, current := []byte(password), ""
	if len(e.cfg.Peppers) > 0 {
		current = e.cfg.Peppers[0].ID
	}
	if parsed.keyID != "" {
		pepper, err := e.pepper(parsed.keyID)
		if err != nil {
			return false, false, err
		}
		secret = apply(pepper, secret)
	}
	p := parsed.params
	if !p.affordable() {
		return false, false, errCost
	}
	e.cfg.spend("argon2", p.work())
	ok = subtle.ConstantTimeCompare(parsed.compute(secret), parsed.key) == 1
	return ok, parsed.variant != "argon2id" || p != e.cfg.Params || parsed.keyID != current || e.cfg.BcryptCost > 0, nil
}

func (e localEngine) pepper(id string) (service.Key, error) {
	pepper, ok := e.cfg.Peppers.Find(id)
	if !ok {
		return pepper, fmt.Errorf("%w: PASSWORD_PEPPERS has no %q", errHash, id)
	}
	return pepper, nil
}

// apply returns the password keyed with a pepper, a secret that is not in the database.
func apply(pepper service.Key, password []byte) []byte {
	mac := hmac.New(sha256.New, []byte(pepper.Secret.Reveal()))
	mac.Write(password)
	return []byte(base64.RawStdEncoding.EncodeToString(mac.Sum(nil)))
}

// parsed is a PHC string of Argon2.
type parsed struct {
	variant   string // argon2id or argon2i
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

// compute returns the hash of a password, which may be peppered.
func (p parsed) compute(secret []byte) []byte {
	derive := argon2.IDKey
	if p.variant == "argon2i" {
		derive = argon2.Key
	}
	return derive(secret, p.salt, p.params.Passes, p.params.MemoryKiB, p.params.Threads, uint32(len(p.key))) //nolint:gosec // parse bounds it.
}

// parse parses the PHC string of an Argon2 hash: Argon2id or Argon2i of version 1.3, with its
// parameters in any order. Associated data and version 1.0, which has no v, are not supported.
func parse(hash string) (parsed, error) {
	s, err := parsePHC(hash)
	if err != nil || s.id != "argon2id" && s.id != "argon2i" || s.version != argon2.Version {
		return parsed{}, errHash
	}
	memory, memoryErr := s.number("m", 32)
	passes, passesErr := s.number("t", 32)
	threads, threadsErr := s.number("p", 8)
	p := parsed{
		variant: s.id, params: Params{uint32(memory), uint32(passes), uint8(threads)}, //nolint:gosec // number bounds them.
		salt: s.salt, key: s.hash,
	}
	var peppered bool
	p.keyID, peppered = s.take("keyid")
	if errors.Join(memoryErr, passesErr, threadsErr) != nil || peppered && !service.KeyID(p.keyID) || len(s.params) > 0 {
		return parsed{}, errHash
	}
	if p.params.MemoryKiB < 8 || p.params.Passes < 1 || p.params.Threads < 1 || len(p.salt) < 8 || len(p.key) < 16 {
		return parsed{}, errHash
	}
	return p, nil
}
