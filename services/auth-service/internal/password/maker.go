package password

import (
	"errors"
	"fmt"
	"strings"
)

// maker makes and checks hashes, as long as it takes.
type maker struct{ cfg Config }

// job is one hash to be made, or checked.
type job struct {
	Verify   bool
	Hash     string
	Password string
	Even     int // cost of bcrypt that every failure takes
}

// result is what came of a job. Fault is the text of an error.
type result struct {
	Hash      string
	OK, Stale bool
	Fault     string
}

var errHash = errors.New("password hash is not understood")

// do implements engine.
func (m maker) do(j job) (result, error) {
	var r result
	var err error
	if j.Verify {
		r.OK, r.Stale, err = m.verify(j)
	} else {
		r.Hash, err = m.hash(normal(j.Password))
	}
	if err != nil {
		r.Fault = err.Error()
	}
	return r, nil
}

// close implements engine.
func (m maker) close() {}

// MaxBytes is how long a normalized password may be.
func (m maker) MaxBytes() int {
	if m.cfg.BcryptCost > 0 {
		return bcryptBytes
	}
	return MaxBytes
}

func (m maker) hash(password string) (string, error) {
	if m.cfg.BcryptCost > 0 {
		return m.encodeBcrypt(password)
	}
	return m.encodeArgon2(password), nil
}

func (m maker) verify(j job) (ok, stale bool, err error) {
	password := normal(j.Password)
	spent, argon := 0, false
	switch {
	case j.Hash == "":
	case strings.HasPrefix(j.Hash, "$2"):
		ok, stale, spent, err = m.checkBcrypt(j.Hash, password)
		if err == nil && !ok && j.Password != password {
			// An earlier system hashed what was typed.
			ok, stale, spent, err = m.checkBcrypt(j.Hash, j.Password)
		}
	default:
		ok, stale, err = m.checkArgon2(j.Hash, password)
		argon = true
	}
	if err == nil && !ok {
		m.even(password, spent, argon, j.Even)
	}
	// One that is too long for the new kind keeps its hash.
	return ok, stale && len(password) <= m.MaxBytes(), err
}

// even makes every failure cost one Argon2id and one bcrypt of the highest cost
// around. Otherwise the time would tell the accounts of an earlier system, whose
// hashes are of another kind, from addresses without an account (SEC-26). Costs
// over 12 are not made up for: they would let a few strangers occupy the machine.
func (m maker) even(password string, spent int, argon bool, cost int) {
	if !argon {
		m.encodeArgon2(password)
	}
	spendBcrypt(cost, spent)
}

// CheckHash says why Verify could never take hash, or returns nil.
func (m maker) CheckHash(hash string) error {
	if strings.HasPrefix(hash, "$2") {
		cost, err := bcryptCost(hash)
		if err == nil && cost > maxBcryptCost {
			err = fmt.Errorf("%w: its cost is higher than %d", errHash, maxBcryptCost)
		}
		return err
	}
	parsed, err := parse(hash)
	if err == nil && parsed.keyID != "" {
		_, err = m.pepper(parsed.keyID)
	}
	return err
}
