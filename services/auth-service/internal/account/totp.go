package account

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/pkg/problem"
	"github.com/headgate/headgate/pkg/token"
	"github.com/headgate/headgate/services/auth-service/internal/factor"
)

// Enrolment is a new TOTP factor that its owner has not confirmed yet.
type Enrolment struct {
	factor.TOTPKey

	FactorID string
}

// EnrolTOTP adds a TOTP factor. It replaces one that was never confirmed. It has no
// effect on logins until ConfirmTOTP. It fails with ErrReauthRequired.
func (a *Accounts) EnrolTOTP(ctx context.Context, caller token.Identity) (Enrolment, error) {
	var out Enrolment
	err := a.updateOwnAfterReauth(ctx, caller, sessionOf(caller), func(c *Change) error {
		key, err := factor.NewTOTPKey(a.brand, c.Account.Email.Address)
		if err != nil {
			return err
		}
		added, err := newFactor(c.Account, factor.KindTOTP, "Authenticator app", a.time())
		if err != nil {
			return err
		}
		added.Secret, added.Proved = string(a.atRest.Seal(key.Secret, factorContext(added))), c.provedBy(caller)
		c.Factors = slices.DeleteFunc(c.Factors, func(f Factor) bool { return f.Kind == factor.KindTOTP && f.ConfirmedAt.IsZero() })
		c.Factors = append(c.Factors, added)
		c.record(ctx, added.CreatedAt, event.MFAEnrolmentBegun{FactorID: added.ID, Kind: added.Kind})
		out = Enrolment{FactorID: added.ID, TOTPKey: key}
		return nil
	})
	return out, err
}

// FactorContext binds a sealed secret to its factor.
func FactorContext(id, accountID string) string { return "factor " + id + " " + accountID }

func factorContext(f Factor) string { return FactorContext(f.ID, f.AccountID) }

// TOTPConfirmation enables a TOTP factor.
type TOTPConfirmation struct {
	Confirmation

	FactorID string
	Code     string // of the factor
}

// ConfirmTOTP enables a factor once its owner has entered a code of it, and returns
// new recovery codes, which cannot be shown again. Other sessions end, unless they were
// made with two factors. A wrong code uses up no proof. It fails
// with a validation problem, ErrFactorNotFound, ErrCodeInvalid, and as addToOwn does.
func (a *Accounts) ConfirmTOTP(ctx context.Context, caller token.Identity, in TOTPConfirmation) ([]string, error) {
	code, codeErr := parseTOTPCode(in.Code)
	if err := validate(codeErr); err != nil {
		return nil, err
	}
	var codes []string
	err := a.addToOwn(ctx, caller, allSessions, in.Confirmation, func(c *Change, own *Session) error {
		i := slices.IndexFunc(c.Factors, func(f Factor) bool { return f.ID == in.FactorID && f.Kind == factor.KindTOTP && f.ConfirmedAt.IsZero() })
		if i < 0 {
			return ErrFactorNotFound
		}
		f := &c.Factors[i]
		valid, err := a.useTOTP(f, code)
		if err != nil {
			return err
		}
		if !valid {
			return ErrCodeInvalid
		}
		now := a.time()
		f.ConfirmedAt, f.Proved = now, f.Proved && c.provedBy(caller)
		c.Account.UpdatedAt, c.Account.MFAEnabled = now, true
		own.Methods = own.Methods.with(byCode)
		c.revokeOneFactorSessions(ctx, now, own)
		codes = c.newRecoveryCodes()
		// The mail about the factor is enough.
		c.Events = append(c.Events, withoutMail(event.New(ctx, now, c.Account.ID, event.MFARecoveryCodesMade{})))
		return c.notify(ctx, now, event.MFAEnrolled{FactorID: f.ID, Kind: f.Kind, Email: c.Account.Email.Address, Name: c.Account.Name})
	})
	if errors.Is(err, ErrCodeInvalid) {
		a.count(ctx, caller.UserID, event.MFAChallengeFailed{Reason: ErrCodeInvalid.Code}) // No delay bounds these.
		return nil, problem.Recorded(ErrCodeInvalid)
	}
	return codes, err
}

// revokeOneFactorSessions ends the sessions that were made without a second factor, except
// the one that has just added one. Whoever began them may not have it.
func (c *Change) revokeOneFactorSessions(ctx context.Context, now time.Time, own *Session) {
	for s := range c.everySession() {
		if s.ID != own.ID && !s.Revoked() && !s.Methods.twoFactors() {
			c.Events = append(c.Events, s.revoke(ctx, now, reasonFactorAdded))
		}
	}
}

// useTOTP reports whether a code is valid for a factor now, and makes it and all
// older codes invalid from then on.
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
