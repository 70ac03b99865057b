package account

import (
	"context"
	"slices"
	"time"

	"github.com/headgate/headgate/pkg/event"
)

// Change is an account under lock, with its living sessions, and what becomes
// of them in one transaction. Whoever decides changes it in place.
type Change struct {
	Account       Account
	Sessions      []Session // oldest first
	Factors       []Factor  // oldest first
	RecoveryCodes []string  // hashes of the recovery codes that are left

	Deleted       bool               // the account, and all that belongs to it
	NewSession    *Session           // a new session
	RevokeTokens  []TokenRevocation  // tokens that are good no more
	NewTokens     []OneTimeToken     // new ones
	ClearAttempts []byte             // the key of a CountedAttempt whose failures are cleared
	Idempotency   *IdempotencyRecord // whose answer is stored
	Events        []event.Event

	RevokeChallenges bool // Do sign-ins end that wait for a second factor?

	AllowMail AllowMail
}

// TokenRevocation are the one-time tokens of a purpose that were made after a time.
type TokenRevocation struct {
	Purpose      LinkPurpose
	CreatedAfter time.Time // not those of that very moment
}

// SessionChange is a session under lock, and what becomes of it.
type SessionChange struct {
	Session   Session
	Owner     Account // not locked
	Events    []event.Event
	AllowMail AllowMail
}

// AllowMail reports whether an address may get one more mail of a kind, and counts
// it: 3 an hour and 10 a day, so that nobody is bombed with mail (SEC-34).
type AllowMail func(ctx context.Context, kind MailKind, to Email) (bool, error)

// MailKind is what mails are counted as.
type MailKind string

// The kinds of mails. An account's owner has mails of their own where they are
// known, so that strangers who ask cannot use them up.
const (
	mailRequested                 MailKind = ""
	mailRequestedFromKnownNetwork MailKind = "asked at home\x00"
	mailSignUp                    MailKind = "sign-up\x00"
	mailNotice                    MailKind = "notice\x00"
)

// revokeTokens makes older tokens of some purposes void.
func (c *Change) revokeTokens(purposes ...LinkPurpose) {
	for _, p := range purposes {
		c.RevokeTokens = append(c.RevokeTokens, TokenRevocation{Purpose: p})
	}
}

// notice makes an event that mails the owner of an address, or one that only is
// recorded, if nobody has proved to own the address and it got enough of them:
// what somebody does to an account of theirs must not fill a stranger's mailbox.
func notice(ctx context.Context, now time.Time, owner Account, allowMail AllowMail, p event.Payload) (event.Event, error) {
	e := event.New(ctx, now, owner.ID, p)
	if owner.EmailVerified {
		return e, nil
	}
	ok, err := allowMail(ctx, mailNotice, owner.Email)
	if !ok {
		e.Topics = slices.DeleteFunc(slices.Clone(e.Topics), func(t event.Topic) bool { return t == event.Email })
	}
	return e, err
}

// notify adds an event that mails the owner.
func (c *Change) notify(ctx context.Context, now time.Time, p event.Payload) error {
	e, err := notice(ctx, now, c.Account, c.AllowMail, p)
	c.Events = append(c.Events, e)
	return err
}

// hasSessionFrom reports whether a living session is used from the network.
func (c *Change) hasSessionFrom(network string) bool {
	return slices.ContainsFunc(c.Sessions, func(s Session) bool { return s.Network == network && !s.Revoked() })
}

// record adds an event about the account.
func (c *Change) record(ctx context.Context, now time.Time, p event.Payload) {
	c.Events = append(c.Events, event.New(ctx, now, c.Account.ID, p))
}

// setEmail gives the account an address that its owner has proved. What was
// mailed to another address is void.
func (c *Change) setEmail(now time.Time, to Email) {
	c.Account.Email, c.Account.EmailVerified, c.Account.UpdatedAt = to, true, now
	c.revokeTokens(LinkVerifyEmail, LinkResetPassword, LinkChangeEmail)
}

// revokeSessions revokes the sessions, and the sign-ins that are about to become
// some, and returns how many sessions they were.
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

// session returns the living session with the id, or nil.
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
