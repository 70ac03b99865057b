package password

import (
	"errors"
	"fmt"
	"regexp"

	"golang.org/x/crypto/bcrypt"
)

const (
	// bcrypt reads no more and would accept any ending.
	bcryptBytes = 72
	// A login with an imported hash of a higher cost would take many seconds.
	maxBcryptCost = 16
	// The highest cost that every failure is made to take; see even.
	maxEvenCost = 12
)

// The library reads more than this, such as a hash with a NUL in it, which
// Postgres would not store.
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

// checkBcrypt refuses what bcrypt would cut off (TRAPS T12). spent is the cost
// that it took, 0 for none.
func (m maker) checkBcrypt(hash, password string) (ok, stale bool, spent int, err error) {
	cost, err := bcryptCost(hash)
	if err != nil {
		return false, false, 0, err
	}
	if len(password) > bcryptBytes {
		return false, false, 0, nil
	}
	err = bcrypt.CompareHashAndPassword([]byte(hash), []byte(password))
	switch {
	case err == nil:
		return true, cost < m.cfg.BcryptCost || m.cfg.BcryptCost == 0, cost, nil
	case errors.Is(err, bcrypt.ErrMismatchedHashAndPassword):
		return false, false, cost, nil
	}
	return false, false, cost, fmt.Errorf("check bcrypt hash: %w", err)
}

func (m maker) encodeBcrypt(password string) (string, error) {
	hash, err := bcrypt.GenerateFromPassword([]byte(password), m.cfg.BcryptCost)
	if err != nil {
		return "", fmt.Errorf("hash with bcrypt: %w", err)
	}
	return string(hash), nil
}

// spendBcrypt takes the time of one bcrypt of a cost, less one of spent: each
// step in cost doubles the time, so the costs from spent up are what is missing.
func spendBcrypt(cost, spent int) {
	switch {
	case spent >= cost:
	case spent == 0:
		_, _ = bcrypt.GenerateFromPassword(nil, cost) // Only the time is wanted.
	default:
		for c := spent; c < cost; c++ {
			_, _ = bcrypt.GenerateFromPassword(nil, c)
		}
	}
}
