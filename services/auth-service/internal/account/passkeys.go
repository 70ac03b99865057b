package account

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/pkg/problem"
	"github.com/headgate/headgate/pkg/token"
	"github.com/headgate/headgate/services/auth-service/internal/factor"
	"github.com/headgate/headgate/services/auth-service/internal/signing"
)

// Ceremony is a registration of a passkey or a sign-in with one, between its two
// steps (Web Authentication, 7).
type Ceremony struct {
	Hash      []byte
	AccountID string // empty for a sign-in
	Session   string
	ExpiresAt time.Time
}

// PasskeyCeremony is the first step: what the browser gets, and the token of the second.
type PasskeyCeremony struct {
	Token   string
	Options any
}

const (
	ceremonyLife = 5 * time.Minute
	maxPasskeys  = 20
)

// The failures of passkeys. To register one that cannot be used is a mistake of
// the request; to sign in with one is a proof that failed.
var (
	errPasskeyUnusable = problem.New(problem.Invalid, "passkey_invalid", "The passkey was not accepted.")

	ErrNoPasskeys      = problem.New(problem.NotFound, "passkeys_unavailable", "There are no passkeys here: they need a host with a name.")
	ErrPasskeyInvalid  = problem.New(problem.Unauthenticated, "passkey_invalid", "The passkey was not accepted.")
	ErrPasskeyExpired  = problem.New(problem.Gone, "passkey_token_expired", "This took too long. Start again.")
	ErrPasskeyTaken    = problem.New(problem.Conflict, "passkey_taken", "This passkey is registered already.")
	ErrTooManyPasskeys = problem.New(problem.Conflict, "too_many_passkeys", "The account has as many passkeys as it may have.")
)

// passkeyOwner returns the account as passkeys are checked for it.
func passkeyOwner(c *Change) factor.Owner {
	owner := factor.Owner{ID: c.Account.ID, Email: c.Account.Email.Address, Name: c.Account.Name}
	for _, f := range c.Factors {
		if f.Kind == factor.KindPasskey {
			owner.Passkeys = append(owner.Passkeys, f.Secret)
		}
	}
	return owner
}

// BeginPasskey begins to register a passkey of the caller. It fails with
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
		Hash: hashSecret(secret), AccountID: accountID, Session: first.Session, ExpiresAt: a.time().Add(ceremonyLife),
	})
	return PasskeyCeremony{Token: secret, Options: first.Options}, err
}

// takeCeremony ends a ceremony, whatever comes of it, and returns its session.
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

// FinishPasskey registers a passkey with what the browser answered. It fails with
// a validation problem, ErrPasskeyExpired, one with the code passkey_invalid,
// ErrReauthRequired, ErrPasskeyTaken or ErrTooManyPasskeys.
func (a *Accounts) FinishPasskey(ctx context.Context, caller token.Identity, secret, name string, answer []byte) (Factor, error) {
	name, nameFault := parseLine("name", name)
	if name == "" {
		name = "Passkey"
	}
	if err := faults(nameFault, requiredPasskeyToken(secret), requiredCredential(answer)); err != nil {
		return Factor{}, err
	}
	session, err := a.takeCeremony(ctx, secret, caller.UserID)
	if err != nil {
		return Factor{}, err
	}
	registration, err := factor.ParseRegistration(answer)
	if err != nil {
		return Factor{}, errPasskeyUnusable
	}
	var added Factor
	err = a.updateOwnAfterReauth(ctx, caller, func(c *Change) error {
		owner := passkeyOwner(c)
		if len(owner.Passkeys) >= maxPasskeys {
			return ErrTooManyPasskeys
		}
		credential, err := a.passkeys.FinishRegistration(owner, session, registration)
		if errors.Is(err, factor.ErrRejected) {
			return errPasskeyUnusable
		}
		if err != nil {
			return err
		}
		now := a.time()
		if added, err = newFactor(c.Account, factor.KindPasskey, name, now); err != nil {
			return err
		}
		added.ConfirmedAt, added.Lookup, added.Secret = now, credential.ID, credential.Data
		c.Factors = append(c.Factors, added)
		return c.notify(ctx, now, event.MFAEnrolled{FactorID: added.ID, Kind: factor.KindPasskey, Email: c.Account.Email.Address, Name: c.Account.Name})
	})
	return added, err
}

func requiredPasskeyToken(secret string) *problem.Field {
	return required("passkeyToken", secret, "The token of the first step is needed.")
}

func requiredCredential(answer []byte) *problem.Field {
	return required("credential", string(answer), "What the browser answered is needed.")
}

// RenamePasskey gives one of the caller's passkeys another name. It fails with a
// validation problem or ErrFactorNotFound.
func (a *Accounts) RenamePasskey(ctx context.Context, caller token.Identity, id, name string) (Factor, error) {
	name, fault := parseName(name)
	if err := faults(fault); err != nil {
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

// BeginPasskeyLogin begins a sign-in with whichever passkey the browser has. It
// fails with ErrNoPasskeys.
func (a *Accounts) BeginPasskeyLogin(ctx context.Context) (PasskeyCeremony, error) {
	if a.passkeys == nil {
		return PasskeyCeremony{}, ErrNoPasskeys
	}
	first, err := a.passkeys.BeginLogin()
	if err != nil {
		return PasskeyCeremony{}, err
	}
	return a.beginCeremony(ctx, "", first)
}

// FinishPasskeyLogin signs in with what the browser answered. A passkey that was
// unlocked is two factors, so there is no challenge. It fails with a validation
// problem, ErrPasskeyExpired, ErrPasskeyInvalid, ErrAccountDisabled or
// ErrEmailNotVerified; the last three are recorded.
func (a *Accounts) FinishPasskeyLogin(ctx context.Context, secret, device string, answer []byte) (Account, signing.Tokens, error) {
	device, fault := parseLine("deviceName", device)
	if err := faults(fault, requiredPasskeyToken(secret), requiredCredential(answer)); err != nil {
		return Account{}, signing.Tokens{}, err
	}
	session, err := a.takeCeremony(ctx, secret, "")
	if err != nil {
		return Account{}, signing.Tokens{}, err
	}
	assertion, err := factor.ParseAssertion(answer)
	if err != nil {
		return Account{}, signing.Tokens{}, a.loginFailed(ctx, Account{}, ErrPasskeyInvalid)
	}
	var named, account Account
	var tokens signing.Tokens
	err = a.update(ctx, assertion.OwnerID, func(c *Change) error {
		named = c.Account
		if err := a.usePasskey(c, session, assertion); err != nil {
			return err
		}
		switch {
		case c.Account.Status != Active:
			return ErrAccountDisabled
		case a.requireVerified && !c.Account.EmailVerified:
			return ErrEmailNotVerified
		}
		ctx := actAs(ctx, c.Account)
		started := a.newSession(ctx, c.Account, device)
		c.NewSession = &started
		c.record(ctx, started.CreatedAt, event.UserLoggedIn{SessionID: started.ID, DeviceName: device, Method: factor.KindPasskey})
		account = c.Account
		tokens, err = a.issueTokens(c.Account, started, started.CreatedAt)
		return err
	})
	if errors.Is(err, ErrNotFound) {
		err = ErrPasskeyInvalid
	}
	for _, reason := range []*problem.Problem{ErrPasskeyInvalid, ErrAccountDisabled, ErrEmailNotVerified} {
		if errors.Is(err, reason) {
			return Account{}, signing.Tokens{}, a.loginFailed(ctx, named, reason)
		}
	}
	return account, tokens, err
}

// usePasskey checks an answer against the account's passkeys and notes that one
// was used. It fails with ErrPasskeyInvalid, also for one that was copied.
func (a *Accounts) usePasskey(c *Change, session string, assertion factor.Assertion) error {
	credential, err := a.passkeys.FinishLogin(passkeyOwner(c), session, assertion)
	if errors.Is(err, factor.ErrRejected) {
		return ErrPasskeyInvalid
	}
	if err != nil {
		return err
	}
	i := slices.IndexFunc(c.Factors, func(f Factor) bool { return f.Kind == factor.KindPasskey && f.Lookup == credential.ID })
	if i < 0 {
		return ErrPasskeyInvalid
	}
	c.Factors[i].Secret, c.Factors[i].LastUsedAt = credential.Data, a.time()
	return nil
}
