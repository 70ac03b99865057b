package account

import (
	"context"
	"errors"
	"time"

	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/pkg/problem"
	"github.com/headgate/headgate/pkg/token"
	"github.com/headgate/headgate/services/auth-service/internal/factor"
	"github.com/headgate/headgate/services/auth-service/internal/signing"
)

// MFARequired is what a sign-in gets whose password is right and whose account
// has a second factor.
type MFARequired struct {
	Token     string // for Challenge, and for nothing else
	Factors   []string
	ExpiresIn time.Duration
}

// challenge notes that a second factor is wanted. newHash replaces the password's
// hash unless it is empty.
func (a *Accounts) challenge(ctx context.Context, account Account, device, newHash string, attempt []byte) (*MFARequired, error) {
	secret := newSecret()
	now := a.time()
	err := a.store.StartChallenge(ctx, Challenge{
		Hash: hashSecret(secret), AccountID: account.ID, DeviceName: device, ExpiresAt: now.Add(challengeLife),
	}, account, newHash, attempt, event.New(ctx, now, account.ID, event.MFAChallenged{}))
	if err != nil {
		return nil, err
	}
	return &MFARequired{Token: secret, Factors: []string{factor.KindTOTP, factor.RecoveryCode}, ExpiresIn: challengeLife}, nil
}

// Challenge ends a sign-in with a second factor: a TOTP code or a recovery code.
// A code is good once, and a sign-in has five tries. It fails with a validation
// problem, ErrCodeInvalid, ErrChallengeExpired, ErrTooManyAttempts or
// ErrAccountDisabled.
func (a *Accounts) Challenge(ctx context.Context, secret, code string) (Account, signing.Tokens, error) {
	err := faults(required("mfaToken", secret, "The token of the sign-in is needed."), requiredCode(code))
	if err != nil {
		return Account{}, signing.Tokens{}, err
	}
	return a.passChallenge(ctx, secret, func(ctx context.Context, c *Change) (bool, error) { return a.useCode(ctx, c, code) })
}

func requiredCode(code string) *problem.Field {
	return required("code", code, "A code of your second factor is needed.")
}

// passChallenge is Challenge for whatever factor prove checks.
func (a *Accounts) passChallenge(ctx context.Context, secret string, prove func(context.Context, *Change) (bool, error)) (Account, signing.Tokens, error) {
	var (
		account Account
		tokens  signing.Tokens
		refused error
	)
	hash := hashSecret(secret)
	owner, err := a.store.ChallengeOwner(ctx, hash, a.time())
	if err != nil {
		return Account{}, signing.Tokens{}, err
	}
	// Whoever has the password can begin as many sign-ins as they like; their
	// guesses at the code are counted together.
	attempt, err := a.countFailedAttempt(ctx, codeAttempt, owner.Email)
	if err != nil {
		return Account{}, signing.Tokens{}, err
	}
	err = a.store.UseChallenge(ctx, hash, func(ch *Challenge, c *Change) error {
		ctx, now := actAs(ctx, c.Account), a.time()
		if !now.Before(ch.ExpiresAt) || ch.Attempts >= challengeTries {
			return ErrChallengeExpired
		}
		fits, err := prove(ctx, c)
		switch {
		case err != nil:
			return err
		case c.Account.Status != Active:
			return ErrAccountDisabled
		case !fits:
			ch.Attempts++
			refused = problem.Recorded(ErrCodeInvalid)
			c.record(ctx, now, event.MFAChallengeFailed{Reason: ErrCodeInvalid.Code})
			return nil
		}
		ch.Done = true
		session := a.newSession(ctx, c.Account, ch.DeviceName)
		c.NewSession, c.ClearAttempts = &session, attempt.Key
		c.record(ctx, now, event.UserLoggedIn{SessionID: session.ID, DeviceName: session.DeviceName})
		account = c.Account
		tokens, err = a.issueTokens(account, session, now)
		return err
	})
	if err = errors.Join(err, refused); err != nil {
		return Account{}, signing.Tokens{}, err
	}
	return account, tokens, nil
}

// Reauthenticate notes that the caller has just proved who they are: with the
// password, and with a code if the account has a second factor. It fails with a
// validation problem, ErrCurrentPassword, ErrCodeInvalid or ErrTooManyAttempts.
func (a *Accounts) Reauthenticate(ctx context.Context, caller token.Identity, current, code string) error {
	owner, err := a.confirmPassword(ctx, caller, "password", current)
	if err != nil {
		return err
	}
	var attempt CountedAttempt
	if owner.MFAEnabled {
		if err := faults(requiredCode(code)); err != nil {
			return err
		}
		if attempt, err = a.countFailedAttempt(ctx, codeAttempt, owner.Email); err != nil {
			return err
		}
	}
	var refused error
	err = a.updateOwnIfPassword(ctx, caller, owner, func(c *Change, own *Session) error {
		now := a.time()
		if c.Account.MFAEnabled {
			fits, err := a.useCode(ctx, c, code)
			if err != nil {
				return err
			}
			if !fits {
				refused = problem.Recorded(ErrCodeInvalid)
				c.record(ctx, now, event.MFAChallengeFailed{Reason: ErrCodeInvalid.Code})
				return nil
			}
			c.ClearAttempts = attempt.Key
		}
		own.AuthenticatedAt = now
		c.record(ctx, now, event.UserReauthenticated{SessionID: caller.SessionID})
		return nil
	})
	return errors.Join(err, refused)
}
