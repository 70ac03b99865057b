package password

import (
	"errors"
	"fmt"
	"strings"
)

// engine does one job at a time.
type engine interface {
	do(j job) (result, error)
	close()
}

// localEngine hashes and checks passwords in the calling goroutine.
type localEngine struct{ cfg Config }

// job is one password to hash or to check.
type job struct {
	Verify   bool
	Hash     string
	Password string
	Even     Costs // what a mismatch is made to take
}

// result is the result of a job. Error is the text of an error, or empty.
type result struct {
	Hash      string
	OK, Stale bool
	Error     string
}

var (
	errHash = errors.New("unsupported password hash")
	errCost = fmt.Errorf("%w: its costs are too high", errHash)
)

// do implements engine.
func (e localEngine) do(j job) (result, error) {
	var r result
	var err error
	if j.Verify {
		r.OK, r.Stale, err = e.verify(j)
	} else {
		r.Hash, err = e.hash(normal(j.Password))
	}
	if err != nil {
		r.Error = err.Error()
	}
	return r, nil
}

// close implements engine.
func (e localEngine) close() {}

// MaxBytes returns the maximum length of a normalized password.
func (e localEngine) MaxBytes() int {
	if e.cfg.BcryptCost > 0 {
		return bcryptBytes
	}
	return MaxBytes
}

func (e localEngine) hash(password string) (string, error) {
	if e.cfg.BcryptCost > 0 {
		return e.encodeBcrypt(password)
	}
	return e.encodeArgon2(password), nil
}

func (e localEngine) verify(j job) (ok, stale bool, err error) {
	password := normal(j.Password)
	forms := []string{password}
	if j.Password != password {
		// An earlier system may have hashed the password without normalizing it.
		forms = append(forms, j.Password)
	}
	spent := make([]work, len(forms))
	for i, form := range forms {
		if j.Hash == "" || i > 0 && !imported(j.Hash) {
			continue
		}
		ok, stale, spent[i], err = e.check(j.Hash, form)
		if errors.Is(err, errCost) {
			err = nil // An earlier release stored it. Its owner needs a new password.
		}
		if ok || err != nil {
			break
		}
	}
	if err == nil && !ok {
		e.equalizeTime(password, spent, j.Even)
	}
	// A password that is too long for the new algorithm keeps its hash.
	return ok, stale && len(password) <= e.MaxBytes(), err
}

// imported reports whether hash is of a kind that an earlier system may have made.
func imported(hash string) bool { return strings.HasPrefix(hash, "$2") || isForeign(hash) }

func (e localEngine) check(hash, password string) (ok, stale bool, spent work, err error) {
	switch {
	case strings.HasPrefix(hash, "$2"):
		ok, stale, spent.Bcrypt, err = e.checkBcrypt(hash, password)
	case isForeign(hash):
		ok, spent.Costs, err = e.checkForeign(hash, password)
		stale = true
	default:
		ok, stale, err = e.checkArgon2(hash, password)
		spent.argon2 = err == nil
	}
	return ok, stale, spent, err
}

// work is what a check has spent.
type work struct {
	Costs

	argon2 bool
}

// equalizeTime makes every mismatch take one Argon2id hash and, for each form of the password,
// one hash of each other kind that is stored, with the highest stored cost. spent is what the
// check of each form has spent; only the first can be one of Argon2. Otherwise the time would
// reveal which addresses have an account imported from an earlier system, and which have none
// (SEC-26). Costs of bcrypt over 12 are not equalized, because then a few failed logins could
// occupy the machine.
func (e localEngine) equalizeTime(password string, spent []work, even Costs) {
	if !spent[0].argon2 {
		e.encodeArgon2(password)
	}
	for _, s := range spent {
		e.spendBcrypt(even.Bcrypt, s.Bcrypt)
		e.spendForeign(even, s.Costs)
	}
}

// CheckHash returns why Verify does not support hash, or nil.
func (e localEngine) CheckHash(hash string) error {
	if strings.HasPrefix(hash, "$2") {
		cost, err := bcryptCost(hash)
		if err == nil && cost > maxBcryptCost {
			err = errCost
		}
		return err
	}
	if isForeign(hash) {
		_, err := e.parseForeign(hash)
		return err
	}
	parsed, err := parse(hash)
	if err == nil && !parsed.params.affordable() {
		err = errCost
	}
	if err == nil && parsed.keyID != "" {
		_, err = e.pepper(parsed.keyID)
	}
	return err
}
