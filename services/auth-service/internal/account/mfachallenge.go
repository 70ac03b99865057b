package account

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/pkg/problem"
	"github.com/headgate/headgate/services/auth-service/internal/factor"
	"github.com/headgate/headgate/services/auth-service/internal/signing"
)

// mfaChallengeStore keeps logins that wait for a second factor.
type mfaChallengeStore interface {
	// StartChallenge stores a challenge if its owner still is in.Owner. It fails with
	// ErrAccountChanged.
	StartChallenge(ctx context.Context, ch Challenge, in PasswordLogin) error
	// ChallengeOwner returns the account of a challenge that has not expired at now.
	// It fails with ErrChallengeExpired.
	ChallengeOwner(ctx context.Context, hash []byte, now time.Time) (Account, error)
	// UseChallenge is ChangeAccount with the surplus sessions for the owner of a
	// challenge. It fails with ErrChallengeExpired if there is no such challenge.
	UseChallenge(ctx context.Context, hash []byte, decide func(ch *Challenge, c *Change) error) error
}

// Challenge is a login between the password and the second factor.
type Challenge struct {
	Hash       []byte // of its token
	AccountID  string
	DeviceName string
	Attempts   int
	ExpiresAt  time.Time
	Done       bool // whether it is deleted after the change
}

const (
	challengeLifetime = 5 * time.Minute
	challengeAttempts = 5
)

// The failures of a second factor.
var (
	ErrCodeInvalid      = problem.New(problem.Unauthenticated, "mfa_code_invalid", "Incorrect code.")
	ErrChallengeExpired = problem.New(problem.Gone, "mfa_token_expired", "The sign-in has expired or had too many failed attempts. Start again.")
)

// MFARequired is what a login returns whose password is right and whose account has
// a second factor.
type MFARequired struct {
	Token     string // for Challenge, and for nothing else
	Factors   []string
	ExpiresIn time.Duration
}

// startChallenge stores that a login waits for a second factor.
func (a *Accounts) startChallenge(ctx context.Context, in PasswordLogin, device string) (*MFARequired, error) {
	secret, now := newSecret(), a.time()
	in.Events = append(in.Events, event.New(ctx, now, in.Owner.ID, event.MFAChallenged{}))
	err := a.store.StartChallenge(ctx, Challenge{
		Hash: hashSecret(secret), AccountID: in.Owner.ID, DeviceName: device, ExpiresAt: now.Add(challengeLifetime),
	}, in)
	if err != nil {
		return nil, err
	}
	return &MFARequired{Token: secret, Factors: []string{factor.KindTOTP, factor.RecoveryCode}, ExpiresIn: challengeLifetime}, nil
}

// Challenge finishes a login with a second factor: a TOTP code or a recovery code.
// Each code is valid once, and a challenge allows five attempts. It fails with a
// validation problem, ErrCodeInvalid, ErrChallengeExpired, ErrTooManyAttempts,
// ErrResetRequired or ErrAccountDisabled.
func (a *Accounts) Challenge(ctx context.Context, secret, code, deviceToken string) (Account, signing.Tokens, error) {
	code, codeErr := parseCode(code)
	err := validate(required("mfaToken", secret, "mfaToken is required: it is in the response to the login."), codeErr)
	if err != nil {
		return Account{}, signing.Tokens{}, err
	}
	hash := hashSecret(secret)
	owner, err := a.store.ChallengeOwner(ctx, hash, a.time())
	if err != nil {
		return Account{}, signing.Tokens{}, err
	}
	// Anybody who has the password can start any number of challenges, so guesses at
	// the code are counted across all of them.
	known := a.openDevice(deviceToken)
	attempt, err := a.countFailedAttempt(ctx, codeAttempt, owner.Email, known)
	if err != nil {
		return Account{}, signing.Tokens{}, err
	}
	var (
		account Account
		tokens  signing.Tokens
		refused error
	)
	err = a.store.UseChallenge(ctx, hash, func(ch *Challenge, c *Change) error {
		ctx, now := actAs(ctx, c.Account), a.time()
		if !now.Before(ch.ExpiresAt) || ch.Attempts >= challengeAttempts {
			return ErrChallengeExpired
		}
		valid, err := a.useCode(ctx, c, code)
		switch {
		case err != nil:
			return err
		case c.Account.Status != Active:
			return ErrAccountDisabled
		case !valid:
			ch.Attempts++
			refused = c.refuseCode(ctx, now, ErrCodeInvalid)
			if ch.Attempts == challengeAttempts {
				return c.notify(ctx, now, guessed(c.Account, "code", ch.Attempts))
			}
			return nil
		}
		ch.Done = true
		session := a.newSession(ctx, c.Account, ch.DeviceName, byPassword.with(byCode))
		c.NewSession, c.ClearAttempts, c.IfNewDevice = &session, attempt.Key, newDevice(ctx, c.Account, session)
		c.record(ctx, now, event.UserLoggedIn{SessionID: session.ID, DeviceName: session.DeviceName})
		c.cancelDeletion(ctx, now)
		account = c.Account
		tokens, err = a.firstTokens(account, session, known)
		return err
	})
	if err == nil && refused != nil {
		err = errors.Join(refused, a.attemptFailed(ctx, attempt))
	} else {
		err = a.uncount(ctx, attempt, err)
	}
	if err != nil {
		return Account{}, signing.Tokens{}, err
	}
	return account, tokens, nil
}

// refuseCode records that a code was invalid and returns the error for the client. The
// change must be stored: it counts the attempt.
func (c *Change) refuseCode(ctx context.Context, now time.Time, reason *problem.Problem) error {
	c.record(ctx, now, event.MFAChallengeFailed{Reason: reason.Code})
	return problem.Recorded(reason)
}

// useCode reports whether a code is a valid TOTP or recovery code of the account,
// and makes it invalid from then on.
func (a *Accounts) useCode(ctx context.Context, c *Change, code string) (bool, error) {
	for i := range c.Factors {
		if f := &c.Factors[i]; f.Kind == factor.KindTOTP && !f.ConfirmedAt.IsZero() {
			if valid, err := a.useTOTP(f, code); valid || err != nil {
				return valid, err
			}
		}
	}
	return c.useRecoveryCode(ctx, a.time(), code)
}

// useRecoveryCode reports whether a code is one of the account's recovery codes, removes
// it, and notifies the owner.
func (c *Change) useRecoveryCode(ctx context.Context, now time.Time, code string) (bool, error) {
	i := slices.Index(c.RecoveryCodes, factor.HashRecoveryCode(code))
	if i < 0 {
		return false, nil
	}
	c.RecoveryCodes = slices.Delete(slices.Clone(c.RecoveryCodes), i, i+1)
	return true, c.notify(ctx, now, event.MFARecoveryCodeUsed{
		Left: len(c.RecoveryCodes), Email: c.Account.Email.Address, Name: c.Account.Name,
	})
}
