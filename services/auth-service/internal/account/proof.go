package account

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"time"

	"github.com/headgate/headgate/pkg/event"
)

// LinkPurpose is what a mailed link is for.
type LinkPurpose string

// The purposes.
const (
	LinkVerifyEmail   LinkPurpose = "verify_email"
	LinkResetPassword LinkPurpose = "reset_password"
	LinkChangeEmail   LinkPurpose = "change_email"
	LinkRevertEmail   LinkPurpose = "revert_email"
)

// link is a kind of mail with a link.
type link struct {
	purpose LinkPurpose
	life    func(Lifetimes) time.Duration
	event   func(event.Link) event.Payload
}

var (
	verifyLink = link{
		LinkVerifyEmail, func(l Lifetimes) time.Duration { return l.Verification },
		func(l event.Link) event.Payload { return event.UserVerificationRequested(l) },
	}
	resetLink = link{
		LinkResetPassword, func(l Lifetimes) time.Duration { return l.Reset },
		func(l event.Link) event.Payload { return event.UserResetLinkIssued(l) },
	}
	changeLink = link{
		LinkChangeEmail, func(l Lifetimes) time.Duration { return l.Verification },
		func(l event.Link) event.Payload { return event.UserEmailChangeLinkIssued(l) },
	}
	revertLink = link{
		LinkRevertEmail, func(Lifetimes) time.Duration { return revertLife },
		func(l event.Link) event.Payload { return event.UserEmailRevertLinkIssued(l) },
	}
	// An address that nobody proved to own may be mistyped, so whoever reads mail
	// there has less time; but it may be the owner's, and the change a thief's.
	revertUnprovedLink = link{revertLink.purpose, func(l Lifetimes) time.Duration { return l.Verification }, revertLink.event}
)

// revertLife is how long the owner of an address can take a change back: long
// enough for somebody on a holiday.
const revertLife = 7 * 24 * time.Hour

// issueLink adds a one-time token to c, and the event that carries it, sealed, to
// email-service, which mails it to an address. Older tokens of the kind are void,
// except those that take a change back.
func (a *Accounts) issueLink(ctx context.Context, c *Change, kind link, to Email) {
	now, secret := a.time(), newSecret()
	proof := OneTimeToken{
		Hash: hashSecret(secret), Purpose: kind.purpose, AccountID: c.Account.ID, Email: to.Address,
		CreatedAt: now, ExpiresAt: now.Add(kind.life(a.lifetimes)),
	}
	c.NewTokens = append(c.NewTokens, proof)
	if kind.purpose != LinkRevertEmail { // A thief's second change must not take the owner's way back.
		c.revokeTokens(kind.purpose)
	}
	c.record(ctx, now, kind.event(event.Link{
		Email: to.Address, Name: c.Account.Name, ExpiresAt: proof.ExpiresAt,
		Token: a.sealer.Seal(secret, event.LinkContext(kind.event(event.Link{}), c.Account.ID)),
	}))
}

// useLink is Store.UseToken for a secret that was mailed. It fails with
// ErrTokenInvalid or ErrTokenExpired.
func (a *Accounts) useLink(ctx context.Context, purpose LinkPurpose, secret string, decide func(ctx context.Context, t OneTimeToken, c *Change) error) (Account, error) {
	var changed Account
	var ended []string
	err := a.store.UseToken(ctx, purpose, hashSecret(secret), func(t OneTimeToken, c *Change) error {
		if !a.time().Before(t.ExpiresAt) {
			return ErrTokenExpired
		}
		if err := decide(actAs(ctx, c.Account), t, c); err != nil {
			return err
		}
		changed, ended = c.Account, c.revokedSessions()
		return nil
	})
	if err != nil {
		return Account{}, err
	}
	a.revoked.Revoke(ended...)
	return changed, nil
}

// VerifyEmail uses the secret of a verification link: once, before it expires,
// and only while the account still has the address that it was sent to. It fails
// with ErrTokenInvalid or ErrTokenExpired.
func (a *Accounts) VerifyEmail(ctx context.Context, secret string) (Account, error) {
	return a.useLink(ctx, LinkVerifyEmail, secret, func(ctx context.Context, t OneTimeToken, c *Change) error {
		if t.Email != c.Account.Email.Address {
			return ErrTokenInvalid
		}
		c.Account.EmailVerified, c.Account.UpdatedAt = true, a.time()
		c.record(ctx, c.Account.UpdatedAt, event.UserEmailVerified{Email: t.Email})
		return nil
	})
}

// newSecret returns 256 random bits that fit into a link.
func newSecret() string {
	var b [32]byte
	rand.Read(b[:])
	return base64.RawURLEncoding.EncodeToString(b[:])
}

func hashSecret(secret string) []byte {
	sum := sha256.Sum256([]byte(secret))
	return sum[:]
}
