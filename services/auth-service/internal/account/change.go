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

	Deleted bool           // the account, and all that belongs to it
	Started *Session       // a new session
	Proofs  []OneTimeToken // new ones; each voids the older ones of its purpose
	Void    []string       // purposes whose tokens are void
	Events  []event.Event
}

// record adds an event about the account.
func (c *Change) record(ctx context.Context, now time.Time, p event.Payload) {
	c.Events = append(c.Events, event.New(ctx, now, c.Account.ID, p))
}

// endSessions revokes the sessions, but not the one with the id except, and
// returns how many.
func (c *Change) endSessions(ctx context.Context, now time.Time, reason, except string) int {
	n := 0
	for i := range c.Sessions {
		if s := &c.Sessions[i]; s.ID != except && !s.Revoked() {
			c.Events = append(c.Events, s.end(ctx, now, reason))
			n++
		}
	}
	return n
}

// living reports whether the session with the id is one of those.
func (c *Change) living(id string) bool {
	return slices.ContainsFunc(c.Sessions, func(s Session) bool { return s.ID == id && !s.Revoked() })
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
