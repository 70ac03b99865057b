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
// many networks gains nothing. From networks that the owner uses they count for the
// address and the network together, and from devices that have signed in before, for
// the address and the device, so that an attacker cannot lock the owner out (ASVS
// 6.3.1, SEC-31). A thief of a device token gains the attempts of that device alone. A new
// password makes networks and devices unknown that were used before: they may be a thief's.
// Answers of passkeys are not counted, because nobody guesses a signature.
//
// After Limits.ConsecutiveFailures failures in a row, from wherever they came, passwords
// and codes are accepted only from such networks and devices, until one succeeds there or
// the owner uses a reset link (NIST SP 800-63B-4, 3.2.2).

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

// Limits bound what one account or network can cause. 0 means no limit.
type Limits struct {
	MailsPerNetwork     int // an hour
	ConsecutiveFailures int
	Sessions            int // of an account; the oldest ends
}

// FailedAttempt is a password or code that is about to be checked. It counts as
// failed until ClearFailedAttempts.
type FailedAttempt struct {
	Kind     string // passwordAttempt or codeAttempt
	EmailKey string
	Network  string
	Device   Device // zero if it is not known
}

// The kinds of attempts, which are counted apart.
const (
	passwordAttempt = ""
	codeAttempt     = "code of the second factor\x00"
)

// CountedAttempt says whether an attempt may go on.
type CountedAttempt struct {
	Allowed    bool
	ByMailOnly bool          // if it is not allowed: whether only a reset link helps
	RetryAfter time.Duration // if it is not allowed otherwise
	Key        []byte        // what it was counted for
	Failures   int           // how many attempts were counted for it, with this one
	At         time.Time
	IsLast     bool // whether it is the last one of Limits.ConsecutiveFailures

	email Email
}

const (
	undelayedAttempts = 10
	longestDelay      = 15 * time.Minute
)

// FailedAttemptRetention is how long failed attempts are remembered after the last
// one.
const FailedAttemptRetention = 24 * time.Hour

// ConsecutiveFailureRetention is how long it is remembered that only a reset link helps,
// and how many failures there were since the last success.
const ConsecutiveFailureRetention = 90 * 24 * time.Hour

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

// The failures of attempts that are not allowed. They do not depend on whether the address
// has an account.
var (
	// ErrTooManyAttempts says how long to wait before the next attempt.
	ErrTooManyAttempts = problem.New(problem.TooManyRequests, "rate_limited", "Too many failed sign-in attempts. Try again later.")
	// ErrResetRequired says that only a reset link helps.
	ErrResetRequired = problem.New(problem.Forbidden, "password_reset_required", "Too many failed sign-in attempts. Choose a new password: use \"Forgot password\".")
)

// countFailedAttempt counts an attempt on an address. The caller clears it if the
// password or code is right. It fails with ErrTooManyAttempts or ErrResetRequired, which
// are recorded.
func (a *Accounts) countFailedAttempt(ctx context.Context, kind string, email Email, device Device) (CountedAttempt, error) {
	counted, err := a.store.CountFailedAttempt(ctx, FailedAttempt{
		Kind: kind, EmailKey: email.Key, Network: event.OriginFrom(ctx).Network(), Device: device,
	})
	counted.email = email
	if err != nil || counted.Allowed {
		return counted, err
	}
	owner, err := a.store.AccountByEmail(ctx, email.Key)
	if err != nil && !errors.Is(err, ErrNotFound) {
		return CountedAttempt{}, err
	}
	reason := ErrTooManyAttempts.WithRetryAfter(counted.RetryAfter)
	if counted.ByMailOnly {
		reason = ErrResetRequired
	}
	return CountedAttempt{}, a.loginRefused(ctx, owner.ID, reason)
}

// uncount takes an attempt back if err kept it from being answered, and returns err. Nobody
// has learned from it whether the password or code is right, and an owner whose account is
// locked for a moment, or whose request was sent twice, must not wait for it.
func (a *Accounts) uncount(ctx context.Context, attempt CountedAttempt, err error) error {
	if err == nil || attempt.Key == nil {
		return err
	}
	return errors.Join(err, a.store.UncountFailedAttempt(context.WithoutCancel(ctx), attempt.Key, attempt.At))
}

// attemptFailed is called when the password or code of an attempt was wrong. After the last
// one of Limits.ConsecutiveFailures it has the owner of the address told, if there is one,
// in the background, so that the time does not reveal it.
func (a *Accounts) attemptFailed(ctx context.Context, attempt CountedAttempt) error {
	if !attempt.IsLast {
		return nil
	}
	return a.addLinkRequest(ctx, LinkRequest{Purpose: purposeLimited, Email: attempt.email})
}

// checkPassword checks a password whose attempt was counted. If it cannot be
// checked, for example because too many others are, the attempt does not count.
func (a *Accounts) checkPassword(ctx context.Context, hasher *password.Hasher, attempt CountedAttempt, hash, typed string) (ok, stale bool, err error) {
	ok, stale, err = hasher.Verify(ctx, hash, typed)
	if err == nil && !ok {
		return ok, stale, a.attemptFailed(ctx, attempt)
	}
	return ok, stale, a.uncount(ctx, attempt, err)
}
