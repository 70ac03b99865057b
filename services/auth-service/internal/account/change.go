package account

import (
	"context"
	"slices"
	"time"

	"github.com/headgate/headgate/pkg/event"
)

// Change is a locked account with its live sessions, and everything that one
// transaction changes about them. A decide function modifies it in place.
type Change struct {
	Account       Account
	Sessions      []Session // oldest first
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

// KnownNetworkRetention is how long a network is known after a proof from there.
const KnownNetworkRetention = 90 * 24 * time.Hour

// record adds an event about the account.
func (c *Change) record(ctx context.Context, now time.Time, p event.Payload) {
	c.Events = append(c.Events, event.New(ctx, now, c.Account.ID, p))
}

// setEmail gives the account an address that its owner has verified. Links and
// codes that were mailed to the previous address are revoked.
func (c *Change) setEmail(now time.Time, to Email) {
	c.Account.Email, c.Account.EmailVerified, c.Account.UpdatedAt = to, true, now
	c.revokeTokens(LinkVerifyEmail, LinkResetPassword, LinkChangeEmail)
	for i := range c.Sessions {
		c.Sessions[i].MailCode = MailCode{}
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
	for i := range c.Sessions {
		if s := &c.Sessions[i]; !s.Revoked() {
			c.Events = append(c.Events, s.revoke(ctx, now, reason))
			n++
		}
	}
	return n
}

// session returns the live session with the id, or nil.
func (c *Change) session(id string) *Session {
	i := slices.IndexFunc(c.Sessions, func(s Session) bool { return s.ID == id && !s.Revoked() })
	if i < 0 {
		return nil
	}
	return &c.Sessions[i]
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
