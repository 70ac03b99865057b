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

// ceremonyStore keeps ceremonies between their two steps.
type ceremonyStore interface {
	// AddCeremony stores a ceremony.
	AddCeremony(ctx context.Context, c Ceremony) error
	// TakeCeremony deletes a ceremony and returns it. It fails with
	// ErrPasskeyExpired.
	TakeCeremony(ctx context.Context, hash []byte) (Ceremony, error)
}

// Ceremony is the registration of a passkey, or a login with one, between its two
// steps (Web Authentication, 7).
type Ceremony struct {
	Hash      []byte // of its token
	AccountID string // empty for a login
	Session   string // see factor.Ceremony
	ExpiresAt time.Time
}

// PasskeyCeremony is the first step of a ceremony as the client gets it.
type PasskeyCeremony struct {
	Token   string // for the second step
	Options any    // for the browser
}

const (
	ceremonyLifetime = 5 * time.Minute
	maxPasskeys      = 20
)

// The failures of passkeys. A passkey that cannot be registered is an invalid
// request, one that cannot sign in a failed authentication.
var (
	errRegistrationInvalid = problem.New(problem.Invalid, "passkey_invalid", "The passkey could not be verified. Try again.")

	ErrNoPasskeys      = problem.New(problem.NotFound, "passkeys_unavailable", "Passkeys are not available: the public URL has an IP address instead of a host name.")
	ErrPasskeyInvalid  = problem.New(problem.Unauthenticated, "passkey_invalid", "The passkey could not be verified. Try again.")
	ErrPasskeyExpired  = problem.New(problem.Gone, "passkey_token_expired", "The passkey request has expired. Start again.")
	ErrPasskeyTaken    = problem.New(problem.Conflict, "passkey_taken", "This passkey is already registered.")
	ErrTooManyPasskeys = problem.New(problem.Conflict, "too_many_passkeys", fmt.Sprintf("This account already has the maximum number of passkeys (%d).", maxPasskeys))
)

// passkeyOwner returns the account as package factor needs it.
func passkeyOwner(c *Change) factor.Owner {
	owner := factor.Owner{ID: c.Account.ID, Email: c.Account.Email.Address, Name: c.Account.Name}
	for _, f := range c.Factors {
		if f.Kind == factor.KindPasskey {
			owner.Passkeys = append(owner.Passkeys, f.Secret)
		}
	}
	return owner
}

// BeginPasskey starts the registration of a passkey for the caller. It fails with
// ErrNoPasskeys, ErrReauthRequired or ErrTooManyPasskeys.
func (a *Accounts) BeginPasskey(ctx context.Context, caller token.Identity) (PasskeyCeremony, error) {
	if a.passkeys == nil {
		return PasskeyCeremony{}, ErrNoPasskeys
	}
	var first factor.Ceremony
	err := a.updateOwnAfterReauth(ctx, caller, func(c *Change) (err error) {
		owner := passkeyOwner(c)
		if len(owner.Passkeys) >= maxPasskeys {
			return ErrTooManyPasskeys
		}
		first, err = a.passkeys.BeginRegistration(owner)
		return err
	})
	if err != nil {
		return PasskeyCeremony{}, err
	}
	return a.beginCeremony(ctx, caller.UserID, first)
}

func (a *Accounts) beginCeremony(ctx context.Context, accountID string, first factor.Ceremony) (PasskeyCeremony, error) {
	secret := newSecret()
	err := a.store.AddCeremony(ctx, Ceremony{
		Hash: hashSecret(secret), AccountID: accountID, Session: first.Session, ExpiresAt: a.time().Add(ceremonyLifetime),
	})
	return PasskeyCeremony{Token: secret, Options: first.Options}, err
}

// takeCeremony ends a ceremony, whatever its result, and returns its session.
func (a *Accounts) takeCeremony(ctx context.Context, secret, accountID string) (string, error) {
	ceremony, err := a.store.TakeCeremony(ctx, hashSecret(secret))
	if err != nil {
		return "", err
	}
	if ceremony.AccountID != accountID || !a.time().Before(ceremony.ExpiresAt) {
		return "", ErrPasskeyExpired
	}
	return ceremony.Session, nil
}

// FinishPasskey registers a passkey with the browser's answer. It fails with a
// validation problem, ErrPasskeyExpired, a problem with the code passkey_invalid,
// ErrReauthRequired, ErrPasskeyTaken or ErrTooManyPasskeys.
func (a *Accounts) FinishPasskey(ctx context.Context, caller token.Identity, secret, name string, answer []byte) (Factor, error) {
	name, nameErr := parseLine("name", name)
	if name == "" {
		name = "Passkey"
	}
	if err := validate(nameErr, requiredPasskeyToken(secret), requiredCredential(answer)); err != nil {
		return Factor{}, err
	}
	session, err := a.takeCeremony(ctx, secret, caller.UserID)
	if err != nil {
		return Factor{}, err
	}
	registration, err := factor.ParseRegistration(answer)
	if err != nil {
		return Factor{}, errRegistrationInvalid
	}
	var added Factor
	err = a.updateOwnAfterReauth(ctx, caller, func(c *Change) error {
		owner := passkeyOwner(c)
		if len(owner.Passkeys) >= maxPasskeys {
			return ErrTooManyPasskeys
		}
		credential, err := a.passkeys.FinishRegistration(owner, session, registration)
		if errors.Is(err, factor.ErrRejected) {
			return errRegistrationInvalid
		}
		if err != nil {
			return err
		}
		now := a.time()
		if added, err = newFactor(c.Account, factor.KindPasskey, name, now); err != nil {
			return err
		}
		added.ConfirmedAt, added.Lookup, added.Secret, added.Proved = now, credential.ID, credential.Data, c.provedBy(caller)
		c.Factors = append(c.Factors, added)
		return c.notify(ctx, now, event.MFAEnrolled{FactorID: added.ID, Kind: added.Kind, Email: c.Account.Email.Address, Name: c.Account.Name})
	})
	return added, err
}

func requiredPasskeyToken(secret string) *problem.Field {
	return required("passkeyToken", secret, "passkeyToken is required: it is in the response to the first step.")
}

func requiredCredential(answer []byte) *problem.Field {
	return required("credential", string(answer), "credential is required: it is the response of the browser.")
}

// RenamePasskey renames one of the caller's passkeys. It fails with a validation
// problem or ErrFactorNotFound.
func (a *Accounts) RenamePasskey(ctx context.Context, caller token.Identity, id, name string) (Factor, error) {
	name, nameErr := parseName(name)
	if err := validate(nameErr); err != nil {
		return Factor{}, err
	}
	var renamed Factor
	err := a.update(ctx, caller.UserID, func(c *Change) error {
		i := slices.IndexFunc(c.Factors, func(f Factor) bool { return f.ID == id && f.Kind == factor.KindPasskey })
		if i < 0 {
			return ErrFactorNotFound
		}
		c.Factors[i].Name = name
		c.record(ctx, a.time(), event.MFARenamed{FactorID: id, Kind: factor.KindPasskey})
		renamed = c.Factors[i]
		return nil
	})
	return renamed, err
}
