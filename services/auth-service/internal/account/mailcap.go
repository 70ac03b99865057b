package account

import (
	"context"
	"slices"
	"time"

	"github.com/headgate/headgate/pkg/event"
)

// AllowMail reports whether an address may get one more mail of a kind, and counts
// it. The cap is 3 an hour and 10 a day, so that no mailbox can be flooded (SEC-34).
type AllowMail func(ctx context.Context, kind MailKind, to Email) (bool, error)

// MailKind is what mails are counted as. Each kind has a cap of its own.
type MailKind string

// The kinds of mails. Requests from a network that the owner uses are counted
// separately, so that requests of other people do not use up the owner's mails.
const (
	mailRequested                 MailKind = ""
	mailRequestedFromKnownNetwork MailKind = "asked at home\x00"
	mailSignUp                    MailKind = "sign-up\x00"
	mailNotice                    MailKind = "notice\x00"
	mailReauth                    MailKind = "reauthentication\x00"
)

// notice returns an event that mails the owner of an account. If the address is not
// verified and its cap is reached, the event is only recorded: a person can sign up
// with another person's address, and must not be able to fill that mailbox.
func notice(ctx context.Context, now time.Time, owner Account, allowMail AllowMail, p event.Payload) (event.Event, error) {
	e := event.New(ctx, now, owner.ID, p)
	if owner.EmailVerified {
		return e, nil
	}
	ok, err := allowMail(ctx, mailNotice, owner.Email)
	if !ok {
		e = withoutMail(e)
	}
	return e, err
}

// withoutMail returns an event that is recorded, but mails nobody.
func withoutMail(e event.Event) event.Event {
	e.Topics = slices.DeleteFunc(slices.Clone(e.Topics), func(t event.Topic) bool { return t == event.Email })
	return e
}

// notify adds a notice to the owner.
func (c *Change) notify(ctx context.Context, now time.Time, p event.Payload) error {
	e, err := notice(ctx, now, c.Account, c.AllowMail, p)
	c.Events = append(c.Events, e)
	return err
}
