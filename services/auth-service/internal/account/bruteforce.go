package account

import (
	"context"
	"errors"
	"time"

	"github.com/headgate/headgate/pkg/event"
)

// FailedAttempt is a password being tried for an address.
type FailedAttempt struct {
	Kind     string // what is guessed at
	EmailKey string
	Network  string
	At       time.Time
}

// CountedAttempt says whether an attempt may go on.
type CountedAttempt struct {
	Allowed    bool
	RetryAfter time.Duration // until another one may, if not
	Key        []byte        // what it was counted for, for ClearFailedAttempts
	At         time.Time     // when
}

// What can be guessed at: each has a count of its own.
const (
	passwordAttempt = ""
	codeAttempt     = "code of the second factor\x00"
)

// Attempts are counted before the password is checked, so that many at once are
// as many as one after the other, and for every address, whether or not it has an
// account. What counts is the address, so that guessing from many networks gains
// nothing, except from networks that the owner uses: there only the address and
// the network together count, so that no stranger can lock the owner out (ASVS
// 6.3.1, SEC-31).
const (
	undelayedAttempts = 10
	longestDelay      = 15 * time.Minute
)

// AttemptDelay returns how long an address has to wait after so many failures.
func AttemptDelay(failures int) time.Duration {
	if failures < undelayedAttempts {
		return 0
	}
	if failures-undelayedAttempts > 10 {
		return longestDelay
	}
	return min(time.Second<<(failures-undelayedAttempts), longestDelay)
}

// FailedAttemptRetention is after how long without a failure they are forgotten.
const FailedAttemptRetention = 24 * time.Hour

// checkPassword checks a password that attempt has counted. If it could not be checked
// at all, because too many others are, it does not count.
func (a *Accounts) checkPassword(ctx context.Context, attempt CountedAttempt, hash, typed string) (ok, stale bool, err error) {
	ok, stale, err = a.hasher.Verify(ctx, hash, typed)
	if err != nil {
		err = errors.Join(err, a.store.UncountFailedAttempt(context.WithoutCancel(ctx), attempt.Key, attempt.At))
	}
	return ok, stale, err
}

// countFailedAttempt counts a guess, and returns what is to be cleared if it fits. It fails
// with ErrTooManyAttempts, which is recorded.
func (a *Accounts) countFailedAttempt(ctx context.Context, kind string, email Email) (CountedAttempt, error) {
	counted, err := a.store.CountFailedAttempt(ctx, FailedAttempt{Kind: kind, EmailKey: email.Key, Network: event.OriginFrom(ctx).Network(), At: a.time()})
	if err != nil || counted.Allowed {
		return counted, err
	}
	owner, err := a.store.AccountByEmail(ctx, email.Key)
	if err != nil && !errors.Is(err, ErrNotFound) {
		return CountedAttempt{}, err
	}
	return CountedAttempt{}, a.loginFailed(ctx, owner, ErrTooManyAttempts.WithRetryAfter(counted.RetryAfter))
}
