package account

import (
	"context"
	"errors"
	"time"

	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/pkg/problem"
	"github.com/headgate/headgate/services/auth-service/internal/password"
)

// Failed attempts are counted before the password or code is checked, so that
// parallel guesses count like consecutive ones, and for every address, whether or
// not it has an account. They count for the address alone, so that guessing from
// many networks gains nothing. Only from networks that the owner uses do they count
// for the address and the network together, so that an attacker cannot lock the
// owner out (ASVS 6.3.1, SEC-31).

// failedAttemptStore counts failed attempts.
type failedAttemptStore interface {
	// CountFailedAttempt counts an attempt as failed, unless it has to wait because
	// of earlier ones. The clock of the store decides.
	CountFailedAttempt(ctx context.Context, a FailedAttempt) (CountedAttempt, error)
	// UncountFailedAttempt takes back an attempt that was counted at a time.
	UncountFailedAttempt(ctx context.Context, key []byte, at time.Time) error
	// ClearFailedAttempts forgets the attempts under the key of a CountedAttempt.
	ClearFailedAttempts(ctx context.Context, key []byte) error
}

// FailedAttempt is a password or code that is about to be checked. It counts as
// failed until ClearFailedAttempts.
type FailedAttempt struct {
	Kind     string // passwordAttempt or codeAttempt
	EmailKey string
	Network  string
}

// The kinds of attempts, which are counted apart.
const (
	passwordAttempt = ""
	codeAttempt     = "code of the second factor\x00"
)

// CountedAttempt says whether an attempt may go on.
type CountedAttempt struct {
	Allowed    bool
	RetryAfter time.Duration // if it is not allowed
	Key        []byte        // what it was counted for
	Failures   int           // how many attempts were counted for it, with this one
	At         time.Time
}

const (
	undelayedAttempts = 10
	longestDelay      = 15 * time.Minute
)

// FailedAttemptRetention is how long failed attempts are remembered after the last
// one.
const FailedAttemptRetention = 24 * time.Hour

// AttemptDelay returns how long the next attempt has to wait after a number of
// failed ones.
func AttemptDelay(failures int) time.Duration {
	if failures < undelayedAttempts {
		return 0
	}
	if failures-undelayedAttempts > 10 {
		return longestDelay
	}
	return min(time.Second<<(failures-undelayedAttempts), longestDelay)
}

// ErrTooManyAttempts says how long to wait before the next attempt.
var ErrTooManyAttempts = problem.New(problem.TooManyRequests, "rate_limited", "Too many failed sign-in attempts. Try again later.")

// countFailedAttempt counts an attempt on an address. The caller clears it if the
// password or code is right. It fails with ErrTooManyAttempts, which is recorded.
func (a *Accounts) countFailedAttempt(ctx context.Context, kind string, email Email) (CountedAttempt, error) {
	counted, err := a.store.CountFailedAttempt(ctx, FailedAttempt{
		Kind: kind, EmailKey: email.Key, Network: event.OriginFrom(ctx).Network(),
	})
	if err != nil || counted.Allowed {
		return counted, err
	}
	owner, err := a.store.AccountByEmail(ctx, email.Key)
	if err != nil && !errors.Is(err, ErrNotFound) {
		return CountedAttempt{}, err
	}
	return CountedAttempt{}, a.loginFailed(ctx, owner, ErrTooManyAttempts.WithRetryAfter(counted.RetryAfter))
}

// checkPassword checks a password whose attempt was counted. If it cannot be
// checked, for example because too many others are, the attempt does not count.
func (a *Accounts) checkPassword(ctx context.Context, hasher *password.Hasher, attempt CountedAttempt, hash, typed string) (ok, stale bool, err error) {
	ok, stale, err = hasher.Verify(ctx, hash, typed)
	if err != nil {
		err = errors.Join(err, a.store.UncountFailedAttempt(context.WithoutCancel(ctx), attempt.Key, attempt.At))
	}
	return ok, stale, err
}
