package password

import (
	"errors"
	"fmt"
	"regexp"

	"golang.org/x/crypto/bcrypt"
)

const (
	// bcrypt ignores everything after these bytes.
	bcryptBytes = 72
	// A login with an imported hash of a higher cost would take many seconds.
	maxBcryptCost = 16
	// The highest cost that mismatches are made to take; see equalizeTime.
	maxEvenCost = 12
)

// The library accepts more than this, for example a hash with a NUL, which Postgres
// cannot store.
var bcryptHash = regexp.MustCompile(`^\$2[aby]\$[0-9]{2}\$[./A-Za-z0-9]{53}$`)

func bcryptCost(hash string) (int, error) {
	if !bcryptHash.MatchString(hash) {
		return 0, errHash
	}
	cost, err := bcrypt.Cost([]byte(hash))
	if err != nil {
		return 0, errHash
	}
	return cost, nil
}

// checkBcrypt reports whether password matches hash, whether hash is stale, and the cost
// that it spent, 0 for none. Of a password over 72 bytes only these count, as in the system
// from which the hash was imported; new passwords that long are refused. Such a hash is not
// stale: the rest of the password was not checked, so it may be wrong.
func (e localEngine) checkBcrypt(hash, password string) (ok, stale bool, spent int, err error) {
	cost, err := bcryptCost(hash)
	if err != nil {
		return false, false, 0, err
	}
	if cost > maxBcryptCost {
		return false, false, 0, errCost
	}
	e.cfg.spend("bcrypt", 1<<cost)
	err = bcrypt.CompareHashAndPassword([]byte(hash), []byte(password))
	switch {
	case err == nil:
		return true, (cost < e.cfg.BcryptCost || e.cfg.BcryptCost == 0) && len(password) <= bcryptBytes, cost, nil
	case errors.Is(err, bcrypt.ErrMismatchedHashAndPassword):
		return false, false, cost, nil
	}
	return false, false, cost, fmt.Errorf("check bcrypt hash: %w", err)
}

func (e localEngine) encodeBcrypt(password string) (string, error) {
	e.cfg.spend("bcrypt", 1<<e.cfg.BcryptCost)
	hash, err := bcrypt.GenerateFromPassword([]byte(password), e.cfg.BcryptCost)
	if err != nil {
		return "", fmt.Errorf("hash with bcrypt: %w", err)
	}
	return string(hash), nil
}

// spendBcrypt takes the time of a bcrypt hash of cost minus one of spent. Each step in
// cost doubles the time, so the costs from spent up to cost-1 add up to the difference.
func (e localEngine) spendBcrypt(cost, spent int) {
	take := func(cost int) {
		e.cfg.spend("bcrypt", 1<<cost)
		_, _ = bcrypt.GenerateFromPassword(nil, cost) // The hash is not needed, only the time.
	}
	switch {
	case spent >= cost:
	case spent == 0:
		take(cost)
	default:
		for c := spent; c < cost; c++ {
			take(c)
		}
	}
}
