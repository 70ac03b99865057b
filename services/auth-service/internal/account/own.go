package account

import (
	"context"
	"errors"
	"slices"

	"github.com/headgate/headgate/pkg/problem"
	"github.com/headgate/headgate/pkg/token"
	"github.com/headgate/headgate/services/auth-service/internal/password"
)

// An access token can be stolen, so it alone is not enough for every change of an
// account. The functions below change the caller's own account and differ in what they
// require besides the token:
//
//	updateOwn             that its session is live
//	updateOwnAfterReauth  updateOwn, and a recent sign-in or re-authentication
//	updateOwnConfirmed    updateOwn, and the password or a proof in the same request
//	updateOwnSensitive    updateOwnConfirmed, and updateOwnAfterReauth if there is a second factor
//	addToOwn              updateOwnConfirmed, with a proof if there is a second factor
//	privileged            for roles that need a second factor, in addition: a proof with it
//
// All of them check it under the account's lock, so nothing changes between the check and
// the change. Renaming a passkey and signing out everywhere need no more than the token:
// neither gives a thief access. Whatever can sign in is added by addToOwn alone, so that a
// stolen token never becomes a way in of its own, however young it is.

// The failures of these checks.
var (
	ErrReauthRequired      = problem.New(problem.Unauthenticated, "reauth_required", "Confirm your identity (POST /api/v1/auth/reauthenticate), then retry, with the proof if this adds a factor.")
	ErrFactorProofRequired = problem.New(problem.Unauthenticated, "reauth_required", "Your role requires a proof with your second factor. Confirm your identity with a passkey (POST /api/v1/auth/reauthenticate/passkey), or with the password and a code (POST /api/v1/auth/reauthenticate), then retry with the proof.")
	ErrMailProofRequired   = problem.New(problem.Unauthenticated, "reauth_required", "Your role requires a proof by email until you have a second factor. Request a code (POST /api/v1/auth/reauthenticate/mail), confirm your identity with it and the password (POST /api/v1/auth/reauthenticate), then retry with the proof.")
	ErrConflict            = problem.New(problem.Conflict, "changed_meanwhile", "Another request changed the account. Try again.")
	ErrCurrentPassword     = problem.New(problem.Unauthenticated, "current_password_invalid", "Incorrect current password.")
)

// updateOwn changes the caller's account; decide gets the current session as well, which lock
// must include. It fails with ErrSessionRevoked if the session has ended, even if the access
// token has not expired: the owner may have signed out a thief.
func (a *Accounts) updateOwn(ctx context.Context, caller token.Identity, lock SessionLock, decide func(c *Change, own *Session) error) error {
	err := a.update(ctx, caller.UserID, lock, func(c *Change) error {
		own := c.session(caller.SessionID)
		if own == nil {
			return ErrSessionRevoked
		}
		return decide(c, own)
	})
	if errors.Is(err, ErrNotFound) {
		return ErrSessionRevoked
	}
	return err
}

// updateOwnAfterReauth is updateOwn within Lifetimes.Reauth of a sign-in or a
// re-authentication. It keeps out a thief of a running session who knows neither
// password nor second factor. It fails with ErrReauthRequired.
func (a *Accounts) updateOwnAfterReauth(ctx context.Context, caller token.Identity, lock SessionLock, decide func(c *Change) error) error {
	return a.updateOwn(ctx, caller, lock, func(c *Change, own *Session) error {
		if !a.recentlyAuthenticated(own) {
			return ErrReauthRequired
		}
		return decide(c)
	})
}

// Confirmation is how a request confirms who sends it, besides its token: with the
// password, or with a proof that a re-authentication has returned.
type Confirmation struct {
	Password string
	Proof    string
}

// confirmed is a Confirmation that confirm has accepted so far.
type confirmed struct {
	passwordHash string // of the password that was right
	proof        string // not checked yet: that needs the lock
	methods      Methods
}

// confirm checks what can be checked of a confirmation without a lock. It fails as
// confirmPassword does, whose field is that of the password.
func (a *Accounts) confirm(ctx context.Context, caller token.Identity, field string, with Confirmation) (confirmed, error) {
	if with.Proof != "" {
		return confirmed{proof: with.Proof, methods: proofMethods(with.Proof)}, nil
	}
	owner, err := a.confirmPassword(ctx, caller, field, with.Password)
	return confirmed{passwordHash: owner.PasswordHash, methods: byPassword}, err
}

// updateOwnConfirmed is updateOwn for what confirm has returned. Together they keep out a
// thief of a session who does not know the password, or knows one that was replaced while
// it was checked: it fails with ErrConflict in the latter case. A proof is used up by the
// change. It fails with ErrReauthRequired if the proof is not that of the session.
func (a *Accounts) updateOwnConfirmed(ctx context.Context, caller token.Identity, lock SessionLock, by confirmed, decide func(c *Change, own *Session) error) error {
	return a.updateOwn(ctx, caller, lock, func(c *Change, own *Session) error {
		switch {
		case by.proof != "" && !own.useProof(by.proof, a.time()):
			return ErrReauthRequired
		case by.proof == "" && c.Account.PasswordHash != by.passwordHash:
			return ErrConflict
		}
		return decide(c, own)
	})
}

// updateOwnSensitive is updateOwnConfirmed that also requires, if the account has a
// second factor, a proof or a recent sign-in or re-authentication with it. It keeps out a
// thief who has a session and the password, but not the second factor. It fails with
// ErrConflict or ErrReauthRequired.
func (a *Accounts) updateOwnSensitive(ctx context.Context, caller token.Identity, lock SessionLock, by confirmed, decide func(c *Change) error) error {
	return a.updateOwnConfirmed(ctx, caller, lock, by, func(c *Change, own *Session) error {
		if by.proof == "" && c.Account.MFAEnabled && !a.recentlyAuthenticated(own) {
			return ErrReauthRequired
		}
		return decide(c)
	})
}

// addToOwn is updateOwnConfirmed for changes that add a way to sign in. If the account has
// a second factor, the password is not enough. It fails with ErrReauthRequired, also
// without a confirmation, and with ErrConflict.
func (a *Accounts) addToOwn(ctx context.Context, caller token.Identity, lock SessionLock, with Confirmation, decide func(c *Change, own *Session) error) error {
	if with == (Confirmation{}) {
		return ErrReauthRequired
	}
	by, err := a.confirm(ctx, caller, "password", with)
	if err != nil {
		return err
	}
	return a.updateOwnConfirmed(ctx, caller, lock, by, func(c *Change, own *Session) error {
		if by.proof == "" && c.Account.MFAEnabled {
			return ErrReauthRequired
		}
		if err := a.privileged(c, by); err != nil {
			return err
		}
		return decide(c, own)
	})
}

// privileged checks a change of what can sign in to an account, or of where its codes are
// mailed. If its role needs a second factor, knowing the password must not lead to one: it
// fails with ErrFactorProofRequired if the account has a second factor that was not used for
// the proof, and with ErrMailProofRequired if it has none and the proof was not made with a
// mailed code, and the password if there is one.
func (a *Accounts) privileged(c *Change, by confirmed) error {
	switch {
	case !a.needsSecondFactor(c):
		return nil
	case c.hasSecondFactor():
		if !by.methods.twoFactors() {
			return ErrFactorProofRequired
		}
	case !by.methods.include(byMail), c.Account.PasswordHash != "" && !by.methods.include(byPassword):
		return ErrMailProofRequired
	}
	return nil
}

func (a *Accounts) needsSecondFactor(c *Change) bool {
	return slices.Contains(a.requireMFAFor, c.Account.Role)
}

// hasSecondFactor reports whether the account has one that a person added who has proved the
// address.
func (c *Change) hasSecondFactor() bool {
	return slices.ContainsFunc(c.Factors, func(f Factor) bool { return f.Proved && !f.ConfirmedAt.IsZero() })
}

func (a *Accounts) recentlyAuthenticated(s *Session) bool {
	return a.time().Sub(s.AuthenticatedAt) < a.lifetimes.Reauth
}

// Own returns the caller's account. It fails with ErrSessionRevoked if it was deleted.
func (a *Accounts) Own(ctx context.Context, caller token.Identity) (Account, error) {
	owner, err := a.store.Account(ctx, caller.UserID)
	if errors.Is(err, ErrNotFound) {
		return Account{}, ErrSessionRevoked
	}
	return owner, err
}

// confirmPassword returns the caller's account if current is its password, which a
// person at an unlocked screen does not know. Wrong passwords count as failed attempts, so
// that a stolen token cannot be used to guess the password. It fails with a
// validation problem named after field, ErrCurrentPassword or ErrTooManyAttempts,
// which are recorded, password.ErrBusy or password.ErrAccountBusy.
func (a *Accounts) confirmPassword(ctx context.Context, caller token.Identity, field, current string) (Account, error) {
	owner, err := a.Own(ctx, caller)
	if err != nil {
		return Account{}, err
	}
	return owner, a.confirmPasswordOf(ctx, owner, field, current)
}

// confirmPasswordOf is confirmPassword for an account that was read.
func (a *Accounts) confirmPasswordOf(ctx context.Context, owner Account, field, current string) error {
	if _, passwordErr := password.Normalize(field, current); passwordErr != nil {
		return validate(passwordErr)
	}
	attempt, err := a.countFailedAttempt(ctx, passwordAttempt, owner.Email, Device{})
	if err != nil {
		return err
	}
	ok, _, err := a.checkPassword(ctx, a.hasher.For(owner.ID), attempt, owner.PasswordHash, current)
	if err != nil {
		return err
	}
	if !ok {
		return a.loginFailed(ctx, owner, ErrCurrentPassword)
	}
	return a.store.ClearFailedAttempts(ctx, attempt.Key)
}
