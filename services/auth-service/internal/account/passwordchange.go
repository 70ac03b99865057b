package account

import (
	"context"
	"slices"
	"time"

	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/pkg/token"
	"github.com/headgate/headgate/services/auth-service/internal/factor"
	"github.com/headgate/headgate/services/auth-service/internal/signing"
)

// NewPassword replaces a password. Passkeys sign in without it, so they are part of the
// decision.
type NewPassword struct {
	Password       string
	RemovePasskeys bool
}

// Replaced is what a new password has ended, and what can still sign in.
type Replaced struct {
	SessionsEnded   int
	RemovedPasskeys []Factor
	Passkeys        []Factor // that are left
}

// ChangePassword gives the caller's account a new password. All sessions end, even
// the current one, because a thief may have its tokens as well. The caller gets a
// new session. It fails with a validation problem, ErrWeakPassword,
// ErrCurrentPassword, ErrReauthRequired, ErrConflict or password.ErrBusy, and with
// ErrFactorProofRequired if the role needs a second factor that the session has not shown.
func (a *Accounts) ChangePassword(ctx context.Context, caller token.Identity, current string, to NewPassword) (signing.Tokens, Replaced, error) {
	secret, passwordErr := a.newPassword("newPassword", to.Password)
	if err := validate(passwordErr); err != nil {
		return signing.Tokens{}, Replaced{}, err
	}
	owner, err := a.confirmPassword(ctx, caller, "currentPassword", current)
	if err != nil {
		return signing.Tokens{}, Replaced{}, err
	}
	hash, err := a.hashNew(ctx, owner, secret)
	if err != nil {
		return signing.Tokens{}, Replaced{}, err
	}
	var tokens signing.Tokens
	var replaced Replaced
	err = a.updateOwnSensitive(ctx, caller, allSessions, confirmed{passwordHash: owner.PasswordHash}, func(c *Change) error {
		own := *c.session(caller.SessionID)
		shown := own.Methods.twoFactors() && a.recentlyAuthenticated(&own)
		if a.needsSecondFactor(c) && c.hasSecondFactor() && !shown {
			return ErrFactorProofRequired // A new password ends sessions, and can remove passkeys.
		}
		now := a.time()
		c.Account.PasswordProved = c.Account.PasswordProved || c.provedBy(caller)
		c.revokeTokens(LinkResetPassword, LinkChangeEmail)
		to.Password = hash
		if replaced, err = c.replacePassword(ctx, now, methodChange, to); err != nil {
			return err
		}
		session := a.newSession(ctx, c.Account, own.DeviceName, own.Methods.with(byPassword))
		c.NewSession = &session
		tokens, err = a.firstTokens(c.Account, session, Device{})
		return err
	})
	return tokens, replaced, err
}

// How a password is replaced, as the event says it.
const (
	methodChange = "change"
	methodReset  = "reset"
)

// replacePassword sets the hash in to, ends all sessions, removes the passkeys if to says
// so, or those that are unproved after a reset, and notifies the owner in one mail.
func (c *Change) replacePassword(ctx context.Context, now time.Time, method string, to NewPassword) (Replaced, error) {
	c.Account.PasswordHash, c.Account.UpdatedAt = to.Password, now
	reason := reasonPasswordChanged
	if method == methodReset {
		reason = reasonPasswordReset
	}
	out := Replaced{SessionsEnded: c.revokeSessions(ctx, now, reason)}
	for _, f := range slices.Clone(c.Factors) {
		switch {
		case f.Kind != factor.KindPasskey:
		case to.RemovePasskeys, method == methodReset && unproved(f):
			c.detachFactor(now, f)
			c.Events = append(c.Events, withoutMail(event.New(ctx, now, c.Account.ID, c.removedFactor(f))))
			out.RemovedPasskeys = append(out.RemovedPasskeys, f)
		default:
			out.Passkeys = append(out.Passkeys, f)
		}
	}
	return out, c.notify(ctx, now, event.UserPasswordChanged{
		Method: method, Email: c.Account.Email.Address, Name: c.Account.Name,
		PasskeysRemoved: len(out.RemovedPasskeys), PasskeysLeft: len(out.Passkeys),
	})
}
