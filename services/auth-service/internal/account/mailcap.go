package account

import (
	"context"
	"slices"
	"time"

	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/pkg/mailaddr"
	"github.com/headgate/headgate/pkg/problem"
)

// AllowMail reports whether an address may get one more mail of a kind, and counts it, so
// that no mailbox can be flooded (SEC-34). The network is that of the origin in ctx.
type AllowMail func(ctx context.Context, kind MailKind, to Email) (bool, error)

// mailBudgetStore charges what causes no mail.
type mailBudgetStore interface {
	// AllowAnswer reports whether a network may get one more answer that reveals whether
	// an address has an account, and counts it like a mail.
	AllowAnswer(ctx context.Context, network string) (bool, error)
}

// MailKind is what mails are counted as.
type MailKind string

// The kinds of mails. Requests from a network that the owner uses, and of signed-in callers,
// are counted apart, so that other people do not use up the owner's mails.
const (
	mailRequested                 MailKind = ""
	mailRequestedFromKnownNetwork MailKind = "asked at home\x00"
	mailSignUp                    MailKind = "sign-up\x00"
	mailNotice                    MailKind = "notice\x00"
	mailReauth                    MailKind = "reauthentication\x00"
	mailChange                    MailKind = "change of address\x00"
)

// MailCharge is a mail that is about to be caused.
type MailCharge struct {
	Kind      MailKind
	To        Email
	AccountID string // that causes it or gets it; may be empty
	Network   string // of the person who causes it; may be empty
}

// MailBudget is a counter that mails are charged to, with its limits. A limit of 0 is none.
type MailBudget struct {
	Key             string
	PerHour, PerDay int
}

// Budgets returns what a mail is charged to. It is allowed if each of them has one left. The
// first is that of the mailbox: all addresses that deliver to it, whoever causes the mail. A
// requester's network has a small part of it, so that several have to work together to use
// it up.
func (m MailCharge) Budgets(limits Limits) []MailBudget {
	mailbox, total := mailaddr.Mailbox(m.To.Key), MailKind("")
	bySignedIn := m.Kind == mailChange || m.Kind == mailReauth
	if bySignedIn || m.Kind == mailRequestedFromKnownNetwork {
		total = m.Kind
	}
	budgets := []MailBudget{
		{Key: string(total) + "mailbox\x00" + mailbox, PerHour: 10, PerDay: 20},
		{Key: string(m.Kind) + "mailbox and network\x00" + mailbox + "\x00" + m.Network, PerHour: 3, PerDay: 10},
	}
	if bySignedIn {
		budgets = append(budgets, MailBudget{Key: string(m.Kind) + "account\x00" + m.AccountID, PerHour: 5, PerDay: 10})
	}
	return append(budgets, NetworkBudget(m.Network, limits)...)
}

// NetworkBudget returns the budget of a network for mails and for answers that reveal
// whether an address has an account, if there is one.
func NetworkBudget(network string, limits Limits) []MailBudget {
	if network == "" || limits.MailsPerNetwork == 0 {
		return nil
	}
	return []MailBudget{{Key: "network\x00" + network, PerHour: limits.MailsPerNetwork}}
}

// The failures of budgets.
var (
	ErrTooManyMails   = problem.New(problem.TooManyRequests, "too_many_mails", "Too many emails were requested. Try again later.").WithRetryAfter(time.Hour)
	ErrTooManySignUps = problem.New(problem.TooManyRequests, "rate_limited", "Too many sign-ups from your network. Try again later.").WithRetryAfter(time.Hour)
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
