package account

import (
	"context"
	"errors"
	"time"

	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/pkg/service"
)

// linkRequestStore queues link requests.
type linkRequestStore interface {
	// AddLinkRequest stores a request.
	AddLinkRequest(ctx context.Context, r LinkRequest) error
	// TakeLinkRequest is ChangeAccount with the Lock of the oldest request that is due at
	// now, for its address. If no account has the address, the change is empty, and an account
	// that handle puts there is created. If handle fails, the request becomes due
	// again later. It reports whether there was a request.
	TakeLinkRequest(ctx context.Context, now time.Time, handle func(r LinkRequest, c *Change) error) (bool, error)
}

// LinkRequest is a request for a mailed link that anybody can make by naming an
// address. It is stored at once and handled later, so that neither the answer nor
// its timing reveals whether the address has an account.
type LinkRequest struct {
	Purpose          LinkPurpose
	Email            Email
	FromKnownNetwork bool               // whether the owner of the address has used its network
	Pending          *Account           // of a sign-up
	Idempotency      *IdempotencyRecord // whose answer is stored
	Origin           event.Origin
	Accepted         time.Time
}

// Lock returns the sessions that the request may end.
func (r LinkRequest) Lock() SessionLock {
	return SessionLock{All: r.Purpose == purposeSignUp} // It may replace an account.
}

// The purposes that no link has: a sign-up, and a notice that too many attempts failed.
const (
	purposeSignUp  LinkPurpose = "sign_up"
	purposeLimited LinkPurpose = "sign_in_limited"
)

// linkRequestPoll is how late a request is handled whose process has died.
const linkRequestPoll = time.Second

// requestLink stores a request for a link to an address.
func (a *Accounts) requestLink(ctx context.Context, purpose LinkPurpose, text string) error {
	email, emailErr := parseEmail("email", text)
	if err := validate(emailErr); err != nil {
		return err
	}
	return a.addLinkRequest(ctx, LinkRequest{Purpose: purpose, Email: email})
}

// requestAccount is a sign-up in SignUpStrict mode. The password is hashed whether or
// not the address has an account, so that the time reveals nothing.
func (a *Accounts) requestAccount(ctx context.Context, pending Account, secret string, record *IdempotencyRecord) error {
	hash, err := a.hasher.Hash(ctx, secret)
	if err != nil {
		return err
	}
	pending.PasswordHash = hash
	if err := a.storeAnswer(record, SignUpResult{}); err != nil {
		return err
	}
	return a.addLinkRequest(ctx, LinkRequest{Purpose: purposeSignUp, Email: pending.Email, Pending: &pending, Idempotency: record})
}

func (a *Accounts) addLinkRequest(ctx context.Context, r LinkRequest) error {
	r.Origin, r.Accepted = event.OriginFrom(ctx), a.time()
	if err := a.store.AddLinkRequest(ctx, r); err != nil {
		return err
	}
	select {
	case a.linkRequestArrived <- struct{}{}:
	default:
	}
	return nil
}

// handleLinkRequests handles requests until ctx ends.
func (a *Accounts) handleLinkRequests(ctx context.Context) {
	poll := time.NewTicker(linkRequestPoll)
	defer poll.Stop()
	outage := service.NewOutage(service.OutageConfig{
		Log: a.log, Failing: "link request failed; retrying", Over: "link requests recovered",
	})
	for ctx.Err() == nil {
		more, err := a.store.TakeLinkRequest(ctx, a.time(), func(r LinkRequest, c *Change) error { return a.handleLinkRequest(ctx, r, c) })
		if ctx.Err() == nil {
			outage.Record(ctx, "", err)
		}
		if more {
			continue
		}
		select {
		case <-ctx.Done():
		case <-a.linkRequestArrived:
		case <-poll.C:
		}
	}
}

// pendingAccount returns the account of a sign-up in SignUpStrict mode.
func (a *Accounts) pendingAccount(r LinkRequest) Account {
	pending := *r.Pending
	pending.Provisional = true
	return pending
}

// replaceSignUp replaces an account that nobody could sign in to yet by a newer sign-up
// with its address: the person who reads the mail must be able to verify it with a
// password of their own. The older one stays if the cap on mails is reached, because its
// link works.
func (a *Accounts) replaceSignUp(ctx context.Context, pending Account, c *Change) error {
	switch ok, err := c.AllowMail(ctx, mailSignUp, pending.Email); {
	case err != nil:
		return err
	case !ok:
		c.record(ctx, a.time(), event.UserMailCapped{Purpose: string(LinkVerifyEmail)})
		return nil
	}
	ctx = actAs(ctx, pending)
	c.deleteAccount(ctx, a.time(), deletedReplaced)
	c.Replacement = &Change{Account: pending, Events: []event.Event{signedUp(ctx, pending)}}
	a.issueLink(ctx, c.Replacement, verifyLink, pending.Email)
	return nil
}

// handleLinkRequest decides what is mailed. c is the account of the address, or
// empty.
func (a *Accounts) handleLinkRequest(ctx context.Context, r LinkRequest, c *Change) error {
	ctx = event.WithOrigin(ctx, r.Origin)
	exists := c.Account.ID != ""
	switch r.Purpose {
	case LinkResetPassword:
		a.recordRequest(ctx, c, event.UserPasswordResetRequested{})
	case LinkVerifyEmail:
		a.recordRequest(ctx, c, event.UserVerificationResendRequested{})
	default: // The account that a sign-up creates has an event of its own.
	}
	switch {
	case r.Purpose == purposeSignUp && !exists:
		c.Account = a.pendingAccount(r)
		return a.addSignUpEvents(actAs(ctx, c.Account), c)
	case r.Purpose == purposeSignUp && c.Account.Provisional && c.Account.unclaimed():
		return a.replaceSignUp(ctx, a.pendingAccount(r), c)
	}
	if !exists || c.Account.Status != Active || r.Purpose == LinkVerifyEmail && c.Account.EmailVerified {
		return nil
	}
	if r.Purpose == purposeLimited {
		return c.notify(ctx, a.time(), event.UserSignInLimited{Email: c.Account.Email.Address, Name: c.Account.Name})
	}
	kind := mailRequested
	if r.FromKnownNetwork {
		kind = mailRequestedFromKnownNetwork
	}
	switch ok, err := c.AllowMail(ctx, kind, c.Account.Email); {
	case err != nil:
		return err
	case !ok:
		c.record(ctx, a.time(), event.UserMailCapped{Purpose: string(r.Purpose)})
		return nil
	}
	switch r.Purpose {
	case LinkVerifyEmail:
		a.issueLink(ctx, c, verifyLink, c.Account.Email)
	case LinkResetPassword:
		a.issueLink(ctx, c, resetLink, c.Account.Email)
	case purposeSignUp:
		c.record(ctx, a.time(), event.UserSignUpRepeated{Email: c.Account.Email.Address, Name: c.Account.Name})
	default:
		return errors.New("unknown purpose of link request: " + string(r.Purpose))
	}
	return nil
}

// recordRequest records a request for a link to an account, or counts it if no account has
// the address.
func (a *Accounts) recordRequest(ctx context.Context, c *Change, p event.Countable) {
	if c.Account.ID == "" {
		a.count(ctx, "", p)
		return
	}
	c.record(ctx, a.time(), p)
}
