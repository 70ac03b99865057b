package account

import (
	"context"
	"crypto/subtle"
	"errors"
	"strings"
	"time"

	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/pkg/problem"
	"github.com/headgate/headgate/pkg/token"
	"github.com/headgate/headgate/services/auth-service/internal/factor"
)

// Reauthentication is how the caller confirms their identity: with the password, a mailed
// code or both, and with a code if the account has a second factor.
type Reauthentication struct {
	Password string
	MailCode string
	Code     string
}

// Proof is the result of a re-authentication. It allows one change of the account, in
// the session that it was made in.
type Proof struct {
	Secret    string // begins with the Methods that it was made with; its hash covers them
	ExpiresIn time.Duration
}

// StoredProof is a Proof as its session keeps it. A session has at most one.
type StoredProof struct {
	Hash      string // empty if there is none
	ExpiresAt time.Time
}

// proofLifetime is how long a proof waits for the change that it is for.
const proofLifetime = 5 * time.Minute

// Reauthenticate confirms the caller's identity for Lifetimes.Reauth. It fails with a
// validation problem, ErrCurrentPassword, ErrMailCodeInvalid, ErrMailCodeExpired,
// ErrCodeInvalid or ErrTooManyAttempts.
func (a *Accounts) Reauthenticate(ctx context.Context, caller token.Identity, in Reauthentication) (Proof, error) {
	owner, err := a.Own(ctx, caller)
	if err == nil {
		in, err = in.parsed(owner)
	}
	if err == nil && (in.MailCode == "" || in.Password != "") {
		err = a.confirmPasswordOf(ctx, owner, "password", in.Password)
	}
	if err != nil {
		return Proof{}, err
	}
	var attempt CountedAttempt
	if owner.MFAEnabled || in.MailCode != "" {
		if attempt, err = a.countFailedAttempt(ctx, codeAttempt, owner.Email, Device{}); err != nil {
			return Proof{}, err
		}
	}
	var proof Proof
	var refused error
	err = a.updateOwnConfirmed(ctx, caller, sessionOf(caller), confirmed{passwordHash: owner.PasswordHash}, func(c *Change, own *Session) error {
		wrong, err := a.checkCodes(ctx, c, own, in)
		if err != nil || wrong != nil {
			refused = wrong
			return err
		}
		c.ClearAttempts = attempt.Key
		own.Proved = own.Proved || c.Account.PasswordProved || in.MailCode != ""
		var by Methods
		if in.MailCode == "" || in.Password != "" {
			by = by.with(byPassword)
		}
		if c.Account.MFAEnabled {
			by = by.with(byCode)
		}
		own.Methods = own.Methods.with(by)
		if in.MailCode != "" {
			by = by.with(byMail)
		}
		proof = a.reauthenticated(ctx, c, own, by)
		return nil
	})
	if err == nil && refused != nil {
		return Proof{}, errors.Join(refused, a.attemptFailed(ctx, attempt))
	}
	return proof, a.uncount(ctx, attempt, err)
}

// parsed returns in with the codes that the owner needs as they are checked. It comes before
// anything that counts as an attempt.
func (in Reauthentication) parsed(owner Account) (Reauthentication, error) {
	var mailErr, codeErr *problem.Field
	if in.MailCode != "" {
		in.MailCode, mailErr = parseMailCode(in.MailCode)
	}
	if owner.MFAEnabled {
		in.Code, codeErr = parseCode(in.Code)
	}
	return in, validate(mailErr, codeErr)
}

// checkCodes checks the codes of a re-authentication. If one of them is wrong, the first
// result is the error for the client, and the change must be stored: it counts the attempt.
func (a *Accounts) checkCodes(ctx context.Context, c *Change, own *Session, in Reauthentication) (wrong, err error) {
	now := a.time()
	if in.MailCode != "" {
		valid, err := a.checkMailCode(own, in.MailCode, now)
		if err != nil {
			return nil, err
		}
		if !valid {
			return c.refuseCode(ctx, now, ErrMailCodeInvalid), nil
		}
	}
	if c.Account.MFAEnabled {
		valid, err := a.useCode(ctx, c, in.Code)
		if err != nil {
			return nil, err
		}
		if !valid {
			return c.refuseCode(ctx, now, ErrCodeInvalid), nil
		}
	}
	return nil, nil
}

// reauthenticated stores that the caller has confirmed their identity by some methods, and
// returns the proof of it, which replaces an earlier one.
func (a *Accounts) reauthenticated(ctx context.Context, c *Change, own *Session, by Methods) Proof {
	now, secret := a.time(), strings.ReplaceAll(string(by), " ", "-")+"."+newSecret()
	own.AuthenticatedAt = now
	own.Proof = StoredProof{Hash: string(hashSecret(secret)), ExpiresAt: now.Add(proofLifetime)}
	own.MailCode = MailCode{}
	c.record(ctx, now, event.UserReauthenticated{SessionID: own.ID})
	return Proof{Secret: secret, ExpiresIn: proofLifetime}
}

// proofMethods returns the methods that a proof says it was made with, which is true if the
// proof is valid. A proof of the previous release says none.
func proofMethods(secret string) Methods {
	by, _, ok := strings.Cut(secret, ".")
	if !ok {
		return ""
	}
	return Methods(strings.ReplaceAll(by, "-", " "))
}

// useProof reports whether a proof is the session's, and makes it invalid from then on.
func (s *Session) useProof(secret string, now time.Time) bool {
	stored := s.Proof
	if subtle.ConstantTimeCompare([]byte(stored.Hash), hashSecret(secret)) == 0 || !now.Before(stored.ExpiresAt) {
		return false
	}
	s.Proof = StoredProof{}
	return true
}

// BeginPasskeyReauth starts a re-authentication with one of the caller's passkeys. It
// fails with ErrNoPasskeys.
func (a *Accounts) BeginPasskeyReauth(caller token.Identity) (PasskeyCeremony, error) {
	if a.passkeys == nil {
		return PasskeyCeremony{}, ErrNoPasskeys
	}
	first, err := a.passkeys.BeginLogin()
	if err != nil {
		return PasskeyCeremony{}, err
	}
	return a.beginCeremony(reauthCeremony(caller), ceremony{Session: first.Session}, first.Options)
}

// FinishPasskeyReauth is Reauthenticate with the browser's answer. A passkey counts as two
// factors, so no code is asked for. It fails with a validation problem, ErrPasskeyExpired
// or ErrPasskeyInvalid, which is recorded.
func (a *Accounts) FinishPasskeyReauth(ctx context.Context, caller token.Identity, passkeyToken string, answer []byte) (Proof, error) {
	if err := validate(requiredPasskeyToken(passkeyToken), requiredCredential(answer)); err != nil {
		return Proof{}, err
	}
	ceremony, err := a.openCeremony(ctx, passkeyToken, reauthCeremony(caller))
	if err != nil {
		return Proof{}, err
	}
	assertion, err := factor.ParseAssertion(answer)
	if err != nil || assertion.OwnerID != caller.UserID {
		return Proof{}, a.loginRefused(ctx, caller.UserID, ErrPasskeyInvalid)
	}
	var proof Proof
	err = a.updateOwn(ctx, caller, sessionOf(caller), func(c *Change, own *Session) error {
		used, err := a.usePasskey(c, ceremony.Session, assertion)
		if err != nil {
			return err
		}
		ceremony.finish(c)
		own.Proved, own.Methods = own.Proved || used.Proved, own.Methods.with(byPasskey)
		proof = a.reauthenticated(ctx, c, own, byPasskey)
		return nil
	})
	if errors.Is(err, ErrPasskeyInvalid) {
		return Proof{}, a.loginRefused(ctx, caller.UserID, ErrPasskeyInvalid)
	}
	return proof, err
}
