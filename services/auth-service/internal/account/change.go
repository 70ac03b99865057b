package account

import (
	"context"
	"iter"
	"slices"
	"time"

	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/pkg/token"
)

// Change is a locked account with those of its live sessions that are locked as well, and
// everything that one transaction changes about them. A decide function modifies it in place.
type Change struct {
	Account       Account
	Locked        SessionLock
	Sessions      []Session // that are locked, oldest first
	Factors       []Factor  // oldest first
	RecoveryCodes []string  // hashes of the codes that were not used yet

	Deleted          bool    // whether the account is deleted, with everything that belongs to it
	Replacement      *Change // a new account in place of a deleted one
	NewSession       *Session
	IfNewDevice      *NewDevice
	NewTokens        []OneTimeToken
	RevokeTokens     []TokenRevocation
	RevokeChallenges bool               // whether logins that wait for a second factor end
	ClearAttempts    []byte             // the key of a CountedAttempt whose failures are cleared
	MailProof        *MailProof         // nil if there was none
	Idempotency      *IdempotencyRecord // whose answer is stored
	FinishedCeremony *FinishedCeremony
	Events           []event.Event

	AllowMail AllowMail
}

// SessionLock is which live sessions of an account a change reads and locks. They are locked
// before the change is decided, because later locks could deadlock with a refresh. Refreshes of
// other sessions do not wait for the change. The zero value locks none.
type SessionLock struct {
	All     bool
	ID      string // the session with this id
	Surplus bool   // the oldest sessions, as many as end if one more begins; they end if it does
}

var (
	noSession       = SessionLock{}
	allSessions     = SessionLock{All: true}
	surplusSessions = SessionLock{Surplus: true}
)

// sessionOf returns the lock of the caller's session.
func sessionOf(caller token.Identity) SessionLock { return SessionLock{ID: caller.SessionID} }

// TokenRevocation revokes the one-time tokens of a purpose that were created after
// a time.
type TokenRevocation struct {
	Purpose      LinkPurpose
	CreatedAfter time.Time // exclusive
}

// MailProof is a use of a mailed link, which only the reader of the owner's mails has.
type MailProof struct {
	Attempts FailedAttempt // that are forgotten; their network becomes one that the owner uses
	At       time.Time
}

// KnownNetworkRetention is how long a network is known after a proof from there, unless a
// later change replaces the password.
const KnownNetworkRetention = 90 * 24 * time.Hour

// record adds an event about the account.
func (c *Change) record(ctx context.Context, now time.Time, p event.Payload) {
	c.Events = append(c.Events, event.New(ctx, now, c.Account.ID, p))
}

// setEmail gives the account an address that its owner has verified. Links and
// codes that were mailed to the previous address are revoked.
func (c *Change) setEmail(now time.Time, to Email) {
	c.Account.Email, c.Account.EmailVerified, c.Account.UpdatedAt = to, true, now
	c.Account.nextVersion(now)
	c.revokeTokens(LinkVerifyEmail, LinkResetPassword, LinkChangeEmail)
	for s := range c.everySession() {
		s.MailCode = MailCode{}
	}
}

// revokeTokens revokes all older tokens of some purposes.
func (c *Change) revokeTokens(purposes ...LinkPurpose) {
	for _, p := range purposes {
		c.RevokeTokens = append(c.RevokeTokens, TokenRevocation{Purpose: p})
	}
}

// revokeSessions revokes the sessions, and the sign-ins that wait for a second
// factor, and returns the number of sessions.
func (c *Change) revokeSessions(ctx context.Context, now time.Time, reason string) int {
	c.RevokeChallenges = true
	n := 0
	for s := range c.everySession() {
		if !s.Revoked() {
			c.Events = append(c.Events, s.revoke(ctx, now, reason))
			n++
		}
	}
	return n
}

// everySession yields all live sessions of the account. It panics unless all are locked: a
// change that should end all of them must not end some.
func (c *Change) everySession() iter.Seq[*Session] {
	if !c.Locked.All {
		panic("account: change of all sessions without their locks")
	}
	return func(yield func(*Session) bool) {
		for i := range c.Sessions {
			if !yield(&c.Sessions[i]) {
				return
			}
		}
	}
}

// session returns the locked live session with the id, or nil.
func (c *Change) session(id string) *Session {
	i := slices.IndexFunc(c.Sessions, func(s Session) bool { return s.ID == id && !s.Revoked() })
	if i < 0 {
		return nil
	}
	return &c.Sessions[i]
}

// usedFrom reports whether the account has a session in a network that is live at now.
func (c *Change) usedFrom(network string, now time.Time) bool {
	for s := range c.everySession() {
		if s.Network == network && network != "" && !s.Revoked() && now.Before(s.ExpiresAt) {
			return true
		}
	}
	return false
}

// revokedSessions returns the ids of the sessions that are revoked.
func (c *Change) revokedSessions() []string {
	var ids []string
	for i := range c.Sessions {
		if c.Sessions[i].Revoked() {
			ids = append(ids, c.Sessions[i].ID)
		}
	}
	return ids
}
