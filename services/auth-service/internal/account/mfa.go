package account

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/pkg/problem"
	"github.com/headgate/headgate/pkg/token"
	"github.com/headgate/headgate/services/auth-service/internal/factor"
)

// Factor is something that the owner of an account has, besides a password.
type Factor struct {
	ID          string
	AccountID   string
	Kind        string
	Name        string
	Secret      string // sealed; of a passkey, its credential
	Lookup      string // of a passkey, the id of its credential
	LastStep    int64  // of TOTP, the last step that was used
	CreatedAt   time.Time
	ConfirmedAt time.Time // zero until its owner has shown to have it
	LastUsedAt  time.Time // zero until it is used
}

// Challenge is a sign-in between the password and the second factor.
type Challenge struct {
	Hash       []byte
	AccountID  string
	DeviceName string
	Attempts   int
	ExpiresAt  time.Time
	Done       bool // It is gone after the change.
}

const (
	challengeLife  = 5 * time.Minute
	challengeTries = 5
)

// Enrolment is a TOTP factor that is not confirmed yet.
type Enrolment struct {
	factor.TOTPKey

	FactorID string
}

// EnrolTOTP begins a TOTP factor, in place of one that was never confirmed. It
// fails with ErrReauthRequired.
func (a *Accounts) EnrolTOTP(ctx context.Context, caller token.Identity) (Enrolment, error) {
	var out Enrolment
	err := a.updateOwnAfterReauth(ctx, caller, func(c *Change) error {
		key, err := factor.NewTOTPKey(c.Account.Email.Address)
		if err != nil {
			return err
		}
		added, err := newFactor(c.Account, factor.KindTOTP, "Authenticator app", a.time())
		if err != nil {
			return err
		}
		added.Secret = string(a.atRest.Seal(key.Secret, factorContext(added)))
		c.Factors = slices.DeleteFunc(c.Factors, func(f Factor) bool { return f.Kind == factor.KindTOTP && f.ConfirmedAt.IsZero() })
		c.Factors = append(c.Factors, added)
		c.record(ctx, added.CreatedAt, event.MFAEnrolmentBegun{FactorID: added.ID, Kind: added.Kind})
		out = Enrolment{FactorID: added.ID, TOTPKey: key}
		return nil
	})
	return out, err
}

func newFactor(owner Account, kind, name string, now time.Time) (Factor, error) {
	id, err := uuid.NewV7()
	if err != nil {
		return Factor{}, fmt.Errorf("make factor id: %w", err)
	}
	return Factor{ID: id.String(), AccountID: owner.ID, Kind: kind, Name: name, CreatedAt: now}, nil
}

func factorContext(f Factor) string { return "factor " + f.ID + " " + f.AccountID }

// ConfirmTOTP makes a factor count, once its owner has shown to have it, and
// returns recovery codes, which are shown this once. It fails with a validation
// problem, ErrFactorNotFound, ErrCodeInvalid or ErrReauthRequired.
func (a *Accounts) ConfirmTOTP(ctx context.Context, caller token.Identity, id, code string) ([]string, error) {
	if err := faults(requiredCode(code)); err != nil {
		return nil, err
	}
	var codes []string
	var refused error
	err := a.updateOwnAfterReauth(ctx, caller, func(c *Change) error {
		i := slices.IndexFunc(c.Factors, func(f Factor) bool { return f.ID == id && f.Kind == factor.KindTOTP && f.ConfirmedAt.IsZero() })
		if i < 0 {
			return ErrFactorNotFound
		}
		fits, err := a.useTOTP(&c.Factors[i], code)
		if err != nil {
			return err
		}
		if !fits {
			refused = problem.Recorded(ErrCodeInvalid)
			c.record(ctx, a.time(), event.MFAChallengeFailed{Reason: ErrCodeInvalid.Code})
			return nil
		}
		codes, err = a.confirm(ctx, c, &c.Factors[i])
		return err
	})
	return codes, errors.Join(err, refused)
}

// confirm makes a factor of c count. With it come recovery codes, in place of
// older ones.
func (a *Accounts) confirm(ctx context.Context, c *Change, f *Factor) ([]string, error) {
	now := a.time()
	f.ConfirmedAt = now
	c.Account.UpdatedAt, c.Account.MFAEnabled = now, true
	codes := a.makeCodes(ctx, c)
	return codes, c.notify(ctx, now, event.MFAEnrolled{FactorID: f.ID, Kind: f.Kind, Email: c.Account.Email.Address, Name: c.Account.Name})
}

func (a *Accounts) makeCodes(ctx context.Context, c *Change) []string {
	codes := factor.NewRecoveryCodes()
	c.RecoveryCodes = nil
	for _, code := range codes {
		c.RecoveryCodes = append(c.RecoveryCodes, factor.HashRecoveryCode(code))
	}
	c.record(ctx, a.time(), event.MFARecoveryCodesMade{})
	return codes
}

// NewRecoveryCodes replaces the recovery codes. It fails with ErrReauthRequired,
// and with ErrFactorNotFound if the account has no factor.
func (a *Accounts) NewRecoveryCodes(ctx context.Context, caller token.Identity) ([]string, error) {
	var codes []string
	err := a.updateOwnAfterReauth(ctx, caller, func(c *Change) error {
		if !c.Account.MFAEnabled {
			return ErrFactorNotFound
		}
		codes = a.makeCodes(ctx, c)
		return nil
	})
	return codes, err
}

// Factors returns the caller's factors that count, oldest first, and how many
// recovery codes are left.
func (a *Accounts) Factors(ctx context.Context, caller token.Identity) ([]Factor, int, error) {
	return a.store.Factors(ctx, caller.UserID)
}

// RemoveFactor removes one of the caller's factors, if current is their password.
// It fails with ErrCurrentPassword, ErrFactorNotFound or ErrReauthRequired.
func (a *Accounts) RemoveFactor(ctx context.Context, caller token.Identity, kind, id, current string) error {
	owner, err := a.confirmPassword(ctx, caller, "password", current)
	if err != nil {
		return err
	}
	return a.updateOwnSensitive(ctx, caller, owner, func(c *Change) error {
		i := slices.IndexFunc(c.Factors, func(f Factor) bool { return f.ID == id && f.Kind == kind })
		if i < 0 {
			return ErrFactorNotFound
		}
		return a.remove(ctx, c, c.Factors[i])
	})
}

// remove removes a factor of c. Of one that never counted nobody is told.
func (a *Accounts) remove(ctx context.Context, c *Change, gone Factor) error {
	now := a.time()
	c.Factors = slices.DeleteFunc(c.Factors, func(f Factor) bool { return f.ID == gone.ID })
	c.Account.UpdatedAt = now
	c.Account.MFAEnabled = slices.ContainsFunc(c.Factors, func(f Factor) bool { return f.Kind == factor.KindTOTP && !f.ConfirmedAt.IsZero() })
	if !c.Account.MFAEnabled {
		c.RecoveryCodes = nil
	}
	if gone.ConfirmedAt.IsZero() {
		return nil
	}
	return c.notify(ctx, now, event.MFARemoved{FactorID: gone.ID, Kind: gone.Kind, Email: c.Account.Email.Address, Name: c.Account.Name})
}

// removeEach removes the factors of c that gone names.
func (a *Accounts) removeEach(ctx context.Context, c *Change, gone func(Factor) bool) error {
	for _, f := range slices.Clone(c.Factors) {
		if !gone(f) {
			continue
		}
		if err := a.remove(ctx, c, f); err != nil {
			return err
		}
	}
	return nil
}

// ResetFactors removes all factors of an account whose owner has lost them, ends
// its sessions, and returns how many factors there were. It fails with
// ErrNotFound.
func (a *Accounts) ResetFactors(ctx context.Context, id string) (int, error) {
	n := 0
	err := a.update(ctx, id, func(c *Change) error {
		n = len(c.Factors)
		c.record(ctx, a.time(), event.MFAReset{Removed: n})
		if n > 0 {
			c.revokeSessions(ctx, a.time(), reasonFactorsReset)
		}
		return a.removeEach(ctx, c, func(Factor) bool { return true })
	})
	return n, err
}

// useTOTP reports whether a code is good for a factor now, and uses its step up
// (ASVS 6.5.1).
func (a *Accounts) useTOTP(f *Factor, code string) (bool, error) {
	secret, err := a.atRest.Open(event.Sealed(f.Secret), factorContext(*f))
	if err != nil {
		return false, fmt.Errorf("open TOTP secret: %w", err)
	}
	now := a.time()
	step, ok, err := factor.CheckTOTP(secret, code, f.LastStep, now)
	if ok {
		f.LastStep, f.LastUsedAt = step, now
	}
	return ok, err
}

// useCode reports whether a code is one of the account's, of TOTP or for
// recovery, and uses it up.
func (a *Accounts) useCode(ctx context.Context, c *Change, code string) (bool, error) {
	code = strings.TrimSpace(code)
	for i := range c.Factors {
		if f := &c.Factors[i]; f.Kind == factor.KindTOTP && !f.ConfirmedAt.IsZero() {
			if fits, err := a.useTOTP(f, code); fits || err != nil {
				return fits, err
			}
		}
	}
	i := slices.Index(c.RecoveryCodes, factor.HashRecoveryCode(code))
	if i < 0 {
		return false, nil
	}
	c.RecoveryCodes = slices.Delete(slices.Clone(c.RecoveryCodes), i, i+1)
	c.record(ctx, a.time(), event.MFARecoveryCodeUsed{Left: len(c.RecoveryCodes)})
	return true, nil
}
