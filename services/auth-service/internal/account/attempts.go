package account

import (
	"context"
	"errors"
	"time"

	"github.com/headgate/headgate/pkg/event"
)

// Attempt is a password being tried for an address.
type Attempt struct {
	Of       string // what is guessed at
	EmailKey string
	Network  string
	At       time.Time
}

// Verdict says whether an attempt may go on.
type Verdict struct {
	Allowed bool
	Wait    time.Duration // until another one may, if not
	Key     []byte        // what it was counted for, for ClearAttempt
	At      time.Time     // when
}

// What can be guessed at: each has a count of its own.
const (
	ofPassword = ""
	ofCode     = "code of the second factor\x00"
)

// Attempts are counted before the password is checked, so that many at once are
// as many as one after the other, and for every address, whether or not it has an
// account. What counts is the address, so that guessing from many networks gains
// nothing, except from networks that the owner uses: there only the address and
// the network together count, so that no stranger can lock the owner out (ASVS
// 6.3.1, SEC-31).
const (
	freeAttempts = 10
	longestDelay = 15 * time.Minute
)

// Delay returns how long an address has to wait after so many failures.
func Delay(failures int) time.Duration {
	if failures < freeAttempts {
		return 0
	}
	if failures-freeAttempts > 10 {
		return longestDelay
	}
	return min(time.Second<<(failures-freeAttempts), longestDelay)
}

// AttemptMemory is after how long without a failure they are forgotten.
const AttemptMemory = 24 * time.Hour

// verify checks a password that attempt has counted. If it could not be checked
// at all, because too many others are, it does not count.
func (a *Accounts) verify(ctx context.Context, attempt Verdict, hash, typed string) (ok, stale bool, err error) {
	ok, stale, err = a.hasher.Verify(ctx, hash, typed)
	if err != nil {
		err = errors.Join(err, a.store.ReturnAttempt(context.WithoutCancel(ctx), attempt.Key, attempt.At))
	}
	return ok, stale, err
}

// attempt counts a guess, and returns what is to be cleared if it fits. It fails
// with ErrTooManyAttempts, which is recorded.
func (a *Accounts) attempt(ctx context.Context, of string, email Email) (Verdict, error) {
	verdict, err := a.store.CountAttempt(ctx, Attempt{Of: of, EmailKey: email.Key, Network: event.OriginFrom(ctx).Network(), At: a.time()})
	if err != nil || verdict.Allowed {
		return verdict, err
	}
	owner, err := a.store.AccountByEmail(ctx, email.Key)
	if err != nil && !errors.Is(err, ErrNotFound) {
		return Verdict{}, err
	}
	return Verdict{}, a.loginFailed(ctx, owner, ErrTooManyAttempts.WithRetryAfter(verdict.Wait))
}
