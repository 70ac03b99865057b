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
	Account  Account
	Sessions []Session // oldest first
	Factors  []Factor  // oldest first
	Codes    []string  // hashes of the recovery codes that are left

	Deleted bool           // the account, and all that belongs to it
	Started *Session       // a new session
	Void    []string       // purposes whose older tokens are void
	Proofs  []OneTimeToken // new ones
	Attempt []byte         // what Verdict counted, to be cleared
	Once    *Once          // whose answer is stored
	Events  []event.Event

	// MayMail reports whether an address may get one more mail that somebody
	// asked for, and counts it.
	MayMail func(ctx context.Context, to Email) (bool, error)
}

// record adds an event about the account.
func (c *Change) record(ctx context.Context, now time.Time, p event.Payload) {
	c.Events = append(c.Events, event.New(ctx, now, c.Account.ID, p))
}

// setEmail gives the account an address that its owner has proved. What was
// mailed to another address is void.
func (c *Change) setEmail(now time.Time, to Email) {
	c.Account.Email, c.Account.EmailVerified, c.Account.UpdatedAt = to, true, now
	c.Void = append(c.Void, purposeVerifyEmail, purposeReset, purposeChangeEmail)
}

// endSessions revokes the sessions and returns how many.
func (c *Change) endSessions(ctx context.Context, now time.Time, reason string) int {
	n := 0
	for i := range c.Sessions {
		if s := &c.Sessions[i]; !s.Revoked() {
			c.Events = append(c.Events, s.end(ctx, now, reason))
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

// ended returns the ids of the sessions that are revoked.
func (c *Change) ended() []string {
	var ids []string
	for i := range c.Sessions {
		if c.Sessions[i].Revoked() {
			ids = append(ids, c.Sessions[i].ID)
		}
	}
	return ids
}
