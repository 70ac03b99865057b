package account

import (
	"context"
	"errors"
	"slices"

	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/pkg/problem"
	"github.com/headgate/headgate/services/auth-service/internal/factor"
	"github.com/headgate/headgate/services/auth-service/internal/signing"
)

// BeginPasskeyLogin starts a login with whichever passkey the browser offers. It
// fails with ErrNoPasskeys.
func (a *Accounts) BeginPasskeyLogin() (PasskeyCeremony, error) {
	if a.passkeys == nil {
		return PasskeyCeremony{}, ErrNoPasskeys
	}
	first, err := a.passkeys.BeginLogin()
	if err != nil {
		return PasskeyCeremony{}, err
	}
	return a.beginCeremony(loginCeremony, ceremony{Session: first.Session}, first.Options)
}

// FinishPasskeyLogin signs in with the browser's answer. The authenticator has
// verified its user, so a passkey counts as two factors and no code is asked for.
// It fails with a validation problem, ErrPasskeyExpired, ErrPasskeyInvalid, ErrAccountDisabled
// or ErrEmailNotVerified. The last three are recorded, of the account if its passkey has signed
// the answer.
func (a *Accounts) FinishPasskeyLogin(ctx context.Context, passkeyToken, device string, answer []byte) (Account, signing.Tokens, error) {
	device, deviceErr := parseLine("deviceName", device)
	if err := validate(deviceErr, requiredPasskeyToken(passkeyToken), requiredCredential(answer)); err != nil {
		return Account{}, signing.Tokens{}, err
	}
	ceremony, err := a.openCeremony(ctx, passkeyToken, loginCeremony)
	if err != nil {
		return Account{}, signing.Tokens{}, err
	}
	assertion, err := factor.ParseAssertion(answer)
	if err != nil {
		return Account{}, signing.Tokens{}, a.loginRefused(ctx, "", ErrPasskeyInvalid)
	}
	switch signed, err := a.signedByPasskey(ctx, ceremony.Session, assertion); {
	case err != nil:
		return Account{}, signing.Tokens{}, err
	case !signed:
		return Account{}, signing.Tokens{}, a.loginRefused(ctx, "", ErrPasskeyInvalid)
	}
	var account Account
	var tokens signing.Tokens
	err = a.update(ctx, assertion.OwnerID, surplusSessions, func(c *Change) error {
		account = c.Account
		used, err := a.usePasskey(c, ceremony.Session, assertion)
		if err != nil {
			return err
		}
		ceremony.finish(c)
		switch {
		case c.Account.Status != Active:
			return ErrAccountDisabled
		case a.mustVerify() && !c.Account.EmailVerified:
			return ErrEmailNotVerified
		}
		ctx := actAs(ctx, c.Account)
		c.cancelDeletion(ctx, a.time())
		account = c.Account
		started := a.newSession(ctx, c.Account, device, byPasskey)
		started.Proved = used.Proved
		c.NewSession, c.IfNewDevice = &started, newDevice(ctx, c.Account, started)
		c.record(ctx, started.CreatedAt, event.UserLoggedIn{SessionID: started.ID, DeviceName: device, Method: factor.KindPasskey})
		tokens, err = a.firstTokens(c.Account, started, Device{})
		return err
	})
	if errors.Is(err, ErrNotFound) {
		err = ErrPasskeyInvalid
	}
	for _, reason := range []*problem.Problem{ErrPasskeyInvalid, ErrAccountDisabled, ErrEmailNotVerified} {
		if errors.Is(err, reason) {
			return Account{}, signing.Tokens{}, a.loginRefused(ctx, account.ID, reason)
		}
	}
	return account, tokens, err
}

// signedByPasskey reports whether one of the passkeys of the account that an answer names has
// signed it. Anybody can name any account, so it locks nothing and nothing counts against the
// account. A copied passkey has signed as well.
func (a *Accounts) signedByPasskey(ctx context.Context, session string, assertion factor.Assertion) (bool, error) {
	factors, _, err := a.store.Factors(ctx, assertion.OwnerID)
	if err != nil {
		return false, err
	}
	owner := passkeyOwner(&Change{Account: Account{ID: assertion.OwnerID}, Factors: factors})
	switch _, err := a.passkeys.FinishLogin(owner, session, assertion); {
	case errors.Is(err, factor.ErrCopied):
		return true, nil
	case errors.Is(err, factor.ErrRejected):
		return false, nil
	default:
		return err == nil, err
	}
}

// usePasskey checks an answer against the account's passkeys, stores that one was used,
// and returns it. It fails with ErrPasskeyInvalid, also if the passkey was copied.
func (a *Accounts) usePasskey(c *Change, session string, assertion factor.Assertion) (Factor, error) {
	credential, err := a.passkeys.FinishLogin(passkeyOwner(c), session, assertion)
	if errors.Is(err, factor.ErrRejected) {
		return Factor{}, ErrPasskeyInvalid
	}
	if err != nil {
		return Factor{}, err
	}
	i := slices.IndexFunc(c.Factors, func(f Factor) bool { return f.Kind == factor.KindPasskey && f.Lookup == credential.ID })
	if i < 0 {
		return Factor{}, ErrPasskeyInvalid
	}
	c.Factors[i].Secret, c.Factors[i].LastUsedAt = credential.Data, a.time()
	return c.Factors[i], nil
}
