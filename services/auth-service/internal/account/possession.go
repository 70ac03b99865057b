package account

import (
	"context"

	"github.com/headgate/headgate/pkg/problem"
	"github.com/headgate/headgate/pkg/token"
)

// A mailed link proves who reads the mail, not who made the account: anybody can type a
// person's address. Only both together prove a credential: then whoever has it reads the
// mail. Unproved credentials and sessions work, too, but the next proof by mail removes
// them, however old they are.

// Verification is what a link must come with to verify an address, or to change it from a
// network in which the account has no session.
type Verification string

// What can be required.
const (
	VerifyByProof Verification = "proof" // the session or the password of the account
	VerifyByLink  Verification = "link"  // nothing; without either, credentials stay unproved
)

// Possession shows that a person who uses a link has the account. A session is enough, and
// so is a password. Both may be missing.
type Possession struct {
	Caller   token.Identity
	Password string
}

// ErrProofRequired says that a link came without a session or the password.
var ErrProofRequired = problem.New(problem.Forbidden, "proof_required", "Enter the password of the account, or sign in to it first.")

// checkedPossession is a Possession whose password is right, unless there is none.
type checkedPossession struct {
	sessionID string // of the link's account; it may have ended
	hash      string // that the password was checked against; empty if there was no password
}

// checkPossession checks a password against the account of a link, which must be
// usable. A wrong password is a failed attempt as at a login. It fails as CheckLink does,
// with a validation problem, ErrCurrentPassword, ErrTooManyAttempts, ErrResetRequired or
// password.ErrBusy.
func (a *Accounts) checkPossession(ctx context.Context, purpose LinkPurpose, secret string, with Possession) (checkedPossession, error) {
	_, owner, err := a.checkLink(ctx, purpose, secret)
	if err != nil {
		return checkedPossession{}, err
	}
	var checked checkedPossession
	if with.Caller.UserID == owner.ID {
		checked.sessionID = with.Caller.SessionID
	}
	if with.Password == "" {
		return checked, nil
	}
	checked.hash = owner.PasswordHash
	return checked, a.confirmPasswordOf(ctx, owner, "password", with.Password)
}

// shown reports whether the person has the account. It fails with ErrConflict if the
// password was changed after it was checked.
func (p checkedPossession) shown(c *Change) (bool, error) {
	switch {
	case c.session(p.sessionID) != nil:
		return true, nil
	case p.hash == "":
		return false, nil
	case p.hash != c.Account.PasswordHash:
		return false, ErrConflict
	}
	return true, nil
}

// setProved marks the credentials and sessions that the account has.
func (c *Change) setProved(proved bool) {
	c.Account.PasswordProved = proved && c.Account.PasswordHash != ""
	for s := range c.everySession() {
		s.Proved = proved
	}
	for i := range c.Factors {
		c.Factors[i].Proved = proved
	}
}

// provedBy reports whether the session of the caller is proved, and so whatever the
// caller adds.
func (c *Change) provedBy(caller token.Identity) bool {
	s := c.session(caller.SessionID)
	return s != nil && s.Proved
}

func unproved(f Factor) bool { return !f.Proved }
