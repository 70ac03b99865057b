package account

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"

	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/pkg/problem"
	"github.com/headgate/headgate/pkg/token"
	"github.com/headgate/headgate/services/auth-service/internal/factor"
)

// ceremonyStore remembers which ceremonies were finished.
type ceremonyStore interface {
	// CeremonyFinished reports whether the ceremony with an id was finished.
	CeremonyFinished(ctx context.Context, id string) (bool, error)
}

// ceremony is the registration of a passkey, or a login with one, between its two
// steps (Web Authentication, 7). The client keeps it, sealed, so the first step stores
// nothing, however many strangers take it.
type ceremony struct {
	ID        string    `json:"id"`
	Session   string    `json:"session"` // see factor.Ceremony
	ExpiresAt time.Time `json:"expiresAt"`
}

// FinishedCeremony is a ceremony whose second step has succeeded. It is stored until it
// expires, so that its token is of no use a second time.
type FinishedCeremony struct {
	ID        string
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

// The purposes of ceremonies. A ceremony is good for its purpose only, in the session that
// began it, so nobody can finish a registration without the proof that beginning it requires.
const loginCeremony = "login"

func registrationCeremony(caller token.Identity) string {
	return "registration " + caller.UserID + " " + caller.SessionID
}

func reauthCeremony(caller token.Identity) string {
	return "reauthentication " + caller.UserID + " " + caller.SessionID
}

// BeginPasskey starts the registration of a passkey for the caller. It fails with
// ErrNoPasskeys or ErrTooManyPasskeys, and as addToOwn does.
func (a *Accounts) BeginPasskey(ctx context.Context, caller token.Identity, with Confirmation) (PasskeyCeremony, error) {
	if a.passkeys == nil {
		return PasskeyCeremony{}, ErrNoPasskeys
	}
	var first factor.Ceremony
	err := a.addToOwn(ctx, caller, sessionOf(caller), with, func(c *Change, _ *Session) (err error) {
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
	return a.beginCeremony(registrationCeremony(caller), ceremony{Session: first.Session}, first.Options)
}

// ceremonyContext separates the ceremonies of a purpose from everything else that is
// sealed.
func ceremonyContext(purpose string) string { return "headgate passkey ceremony v1 " + purpose }

// beginCeremony gives c an id and seals it for the client.
func (a *Accounts) beginCeremony(purpose string, c ceremony, options any) (PasskeyCeremony, error) {
	id, err := uuid.NewV7()
	if err != nil {
		return PasskeyCeremony{}, fmt.Errorf("generate ceremony id: %w", err)
	}
	c.ID, c.ExpiresAt = id.String(), a.time().Add(ceremonyLifetime)
	state, err := json.Marshal(c)
	if err != nil {
		return PasskeyCeremony{}, fmt.Errorf("encode ceremony: %w", err)
	}
	return PasskeyCeremony{Token: string(a.atRest.Seal(string(state), ceremonyContext(purpose))), Options: options}, nil
}

// openCeremony returns the ceremony of a token. It fails with ErrPasskeyExpired, also if
// the ceremony was finished. Two requests at the same time may both get it: the store
// accepts one of them.
func (a *Accounts) openCeremony(ctx context.Context, passkeyToken, purpose string) (ceremony, error) {
	state, err := a.atRest.Open(event.Sealed(passkeyToken), ceremonyContext(purpose))
	if err != nil {
		return ceremony{}, ErrPasskeyExpired
	}
	var c ceremony
	if err := json.Unmarshal([]byte(state), &c); err != nil {
		return ceremony{}, fmt.Errorf("decode ceremony: %w", err)
	}
	if !a.time().Before(c.ExpiresAt) {
		return ceremony{}, ErrPasskeyExpired
	}
	finished, err := a.store.CeremonyFinished(ctx, c.ID)
	if err == nil && finished {
		err = ErrPasskeyExpired
	}
	return c, err
}

// finish adds that the ceremony was finished to a change, which fails with
// ErrPasskeyExpired if it was finished before.
func (c ceremony) finish(change *Change) {
	change.FinishedCeremony = &FinishedCeremony{ID: c.ID, ExpiresAt: c.ExpiresAt}
}

// FinishPasskey registers a passkey with the browser's answer. It fails with a
// validation problem, ErrPasskeyExpired, a problem with the code passkey_invalid,
// ErrPasskeyTaken or ErrTooManyPasskeys.
func (a *Accounts) FinishPasskey(ctx context.Context, caller token.Identity, passkeyToken, name string, answer []byte) (Factor, error) {
	name, nameErr := parseLine("name", name)
	if name == "" {
		name = "Passkey"
	}
	if err := validate(nameErr, requiredPasskeyToken(passkeyToken), requiredCredential(answer)); err != nil {
		return Factor{}, err
	}
	ceremony, err := a.openCeremony(ctx, passkeyToken, registrationCeremony(caller))
	if err != nil {
		return Factor{}, err
	}
	registration, err := factor.ParseRegistration(answer)
	if err != nil {
		return Factor{}, errRegistrationInvalid
	}
	var added Factor
	err = a.updateOwn(ctx, caller, sessionOf(caller), func(c *Change, _ *Session) error {
		owner := passkeyOwner(c)
		if len(owner.Passkeys) >= maxPasskeys {
			return ErrTooManyPasskeys
		}
		credential, err := a.passkeys.FinishRegistration(owner, ceremony.Session, registration)
		if errors.Is(err, factor.ErrRejected) {
			return errRegistrationInvalid
		}
		if err != nil {
			return err
		}
		ceremony.finish(c)
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

func requiredPasskeyToken(text string) *problem.Field {
	return required("passkeyToken", text, "passkeyToken is required: it is in the response to the first step.")
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
	err := a.update(ctx, caller.UserID, noSession, func(c *Change) error {
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
