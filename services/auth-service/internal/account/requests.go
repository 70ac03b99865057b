package account

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/headgate/headgate/pkg/event"
)

// LinkRequest is something that a stranger asks for by naming an address. It is
// stored at once and served later, so that whoever asks learns nothing from the
// answer or its time: whether the address has an account decides what is mailed.
type LinkRequest struct {
	Purpose     LinkPurpose
	Email       Email
	Pending     *Account           // of a sign-up
	Idempotency *IdempotencyRecord // whose answer is stored
	Origin      event.Origin
	Accepted    time.Time
}

// purposeSignUp is the purpose of a request for an account. No link has it.
const purposeSignUp LinkPurpose = "sign_up"

// ResendVerification asks for another verification mail. It fails with a
// validation problem only.
func (a *Accounts) ResendVerification(ctx context.Context, email string) error {
	return a.request(ctx, LinkVerifyEmail, email)
}

// ForgotPassword asks for a mail with which a new password can be chosen. It
// fails with a validation problem only.
func (a *Accounts) ForgotPassword(ctx context.Context, email string) error {
	return a.request(ctx, LinkResetPassword, email)
}

func (a *Accounts) request(ctx context.Context, purpose LinkPurpose, text string) error {
	email, fault := parseEmail("email", text)
	if err := faults(fault); err != nil {
		return err
	}
	return a.enqueue(ctx, LinkRequest{Purpose: purpose, Email: email})
}

// requestAccount is a sign-up in Strict mode. The hash is made for everybody.
func (a *Accounts) requestAccount(ctx context.Context, pending Account, secret string, record *IdempotencyRecord) error {
	hash, err := a.hasher.Hash(ctx, secret)
	if err != nil {
		return err
	}
	pending.PasswordHash = hash
	if err := a.storeAnswer(record, SignUpResult{}); err != nil {
		return err
	}
	return a.enqueue(ctx, LinkRequest{Purpose: purposeSignUp, Email: pending.Email, Pending: &pending, Idempotency: record})
}

func (a *Accounts) enqueue(ctx context.Context, r LinkRequest) error {
	r.Origin, r.Accepted = event.OriginFrom(ctx), a.time()
	if err := a.store.AddLinkRequest(ctx, r); err != nil {
		return err
	}
	select {
	case a.wake <- struct{}{}:
	default:
	}
	return nil
}

const (
	requestPoll = time.Second // how late a request is served whose process has died
	sweepEvery  = 10 * time.Minute
	costsEvery  = time.Minute // how long an import is not made up for; see password.Hasher.Expect
)

// Run serves requests, and sweeps now and then, until ctx ends.
func (a *Accounts) Run(ctx context.Context) error {
	var parts sync.WaitGroup
	parts.Go(func() { a.handleLinkRequests(ctx) })
	parts.Go(func() { a.maintain(ctx) })
	parts.Wait()
	return nil
}

func (a *Accounts) maintain(ctx context.Context) {
	sweep, costs := time.NewTicker(sweepEvery), time.NewTicker(costsEvery)
	defer sweep.Stop()
	defer costs.Stop()
	a.loadBcryptCost(ctx)
	for {
		select {
		case <-ctx.Done():
			return
		case <-costs.C:
			a.loadBcryptCost(ctx)
		case <-sweep.C:
			if err := a.store.Sweep(ctx, a.time()); err != nil && ctx.Err() == nil {
				a.log.WarnContext(ctx, "not swept; it is tried again", "error", err.Error())
			}
		}
	}
}

func (a *Accounts) handleLinkRequests(ctx context.Context) {
	poll := time.NewTicker(requestPoll)
	defer poll.Stop()
	failing := false
	for ctx.Err() == nil {
		more, err := a.store.TakeLinkRequest(ctx, a.time(), func(r LinkRequest, c *Change) error { return a.handleLinkRequest(ctx, r, c) })
		if failed := err != nil; failed != failing && ctx.Err() == nil {
			failing = failed
			if failed {
				a.log.ErrorContext(ctx, "requests by mail not served; they are tried again", "error", err.Error())
			} else {
				a.log.InfoContext(ctx, "requests by mail are served again")
			}
		}
		if more {
			continue
		}
		select {
		case <-ctx.Done():
		case <-a.wake:
		case <-poll.C:
		}
	}
}

func (a *Accounts) loadBcryptCost(ctx context.Context) {
	cost, err := a.store.HighestBcryptCost(ctx)
	if err != nil {
		if ctx.Err() == nil {
			a.log.WarnContext(ctx, "costs of imported hashes not known; it is tried again", "error", err.Error())
		}
		return
	}
	a.hasher.Expect(cost)
}

// handleLinkRequest decides what is mailed for a request. c is the account of the address,
// or none.
func (a *Accounts) handleLinkRequest(ctx context.Context, r LinkRequest, c *Change) error {
	ctx = event.WithOrigin(ctx, r.Origin)
	exists := c.Account.ID != ""
	switch r.Purpose {
	case LinkResetPassword:
		c.record(ctx, a.time(), event.UserPasswordResetRequested{})
	case LinkVerifyEmail:
		c.record(ctx, a.time(), event.UserVerificationResendRequested{})
	}
	if r.Purpose == purposeSignUp && !exists {
		c.Account = *r.Pending
		return a.begin(actAs(ctx, c.Account), c)
	}
	if !exists || c.Account.Status != Active || r.Purpose == LinkVerifyEmail && c.Account.EmailVerified {
		return nil
	}
	kind := mailRequested
	if c.hasSessionFrom(r.Origin.Network()) {
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
		return errors.New("unknown purpose " + string(r.Purpose))
	}
	return nil
}
