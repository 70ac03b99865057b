package account

import (
	"context"

	"github.com/headgate/headgate/pkg/event"
)

// NewDevice is an event to store if a session comes from a new device: the account has had
// sessions, but none in this network, or none with this user agent, in which numbers are
// ignored, because browsers update. Sessions that ended before the last change of the password
// do not count: they may have been a thief's. Others are remembered for a month after their end.
type NewDevice struct {
	Network   string
	UserAgent string
	Event     event.Event
}

// newDevice returns the notice about a session that begins, or nil if the address is not
// verified: a stranger's mailbox is not the place for it.
func newDevice(ctx context.Context, owner Account, s Session) *NewDevice {
	if !owner.EmailVerified {
		return nil
	}
	notice := event.UserSignedInFromNewDevice{SessionID: s.ID, Email: owner.Email.Address, Name: owner.Name}
	return &NewDevice{Network: s.Network, UserAgent: s.UserAgent, Event: event.New(ctx, s.CreatedAt, owner.ID, notice)}
}

// guessed returns the notice that somebody knows the password and has failed often.
func guessed(owner Account, method string, failures int) event.UserGuessed {
	return event.UserGuessed{Method: method, Failures: failures, Email: owner.Email.Address, Name: owner.Name}
}
