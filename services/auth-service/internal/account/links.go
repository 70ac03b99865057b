package account

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"strings"
	"time"
	"unicode"

	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/pkg/problem"
)

// linkStore keeps the one-time tokens in mailed links.
type linkStore interface {
	// UseToken is ChangeAccount with all sessions for the owner of a one-time token, and
	// deletes the token unless decide fails. It fails with ErrTokenInvalid if there is no such
	// token.
	UseToken(ctx context.Context, purpose LinkPurpose, hash []byte, decide func(t OneTimeToken, c *Change) error) error
	// TokenOwner returns an unused one-time token, which may have expired, and its
	// owner. It locks nothing. It fails with ErrTokenInvalid.
	TokenOwner(ctx context.Context, purpose LinkPurpose, hash []byte) (OneTimeToken, Account, error)
}

// LinkPurpose is what a mailed link is for.
type LinkPurpose string

// The purposes.
const (
	LinkVerifyEmail   LinkPurpose = "verify_email"
	LinkResetPassword LinkPurpose = "reset_password"
	LinkChangeEmail   LinkPurpose = "change_email"
	LinkRevertEmail   LinkPurpose = "revert_email"
)

// OneTimeToken is the secret in a link. Using it proves access to the mailbox of an
// address.
type OneTimeToken struct {
	Hash      []byte
	Purpose   LinkPurpose
	AccountID string
	Email     string // that the link was mailed to
	CreatedAt time.Time
	ExpiresAt time.Time
	Unproved  bool // whether nobody had proved the address by then
}

// The failures of links.
var (
	ErrTokenInvalid = problem.New(problem.Invalid, "token_invalid", "This link is no longer valid. Request a new one.")
	ErrTokenExpired = problem.New(problem.Gone, "token_expired", "This link has expired. Request a new one.")
)

// linkKind is how links of a purpose are issued.
type linkKind struct {
	purpose  LinkPurpose
	lifetime func(Lifetimes) time.Duration
	event    func(event.Link) event.Payload
	unproved bool
}

var (
	verifyLink = linkKind{
		purpose: LinkVerifyEmail, lifetime: func(l Lifetimes) time.Duration { return l.Verification },
		event: func(l event.Link) event.Payload { return event.UserVerificationRequested(l) },
	}
	resetLink = linkKind{
		purpose: LinkResetPassword, lifetime: func(l Lifetimes) time.Duration { return l.Reset },
		event: func(l event.Link) event.Payload { return event.UserResetLinkIssued(l) },
	}
	changeLink = linkKind{
		purpose: LinkChangeEmail, lifetime: func(l Lifetimes) time.Duration { return l.Verification },
		event: func(l event.Link) event.Payload { return event.UserEmailChangeLinkIssued(l) },
	}
	revertLink = linkKind{
		purpose: LinkRevertEmail, lifetime: func(Lifetimes) time.Duration { return revertLifetime },
		event: func(l event.Link) event.Payload { return event.UserEmailRevertLinkIssued(l) },
	}
	// An address that was never verified may be mistyped, so its reader gets less time, and
	// must show that the account is theirs. They still get a link: the change may be a thief's.
	revertUnverifiedLink = linkKind{
		purpose: LinkRevertEmail, lifetime: func(l Lifetimes) time.Duration { return l.Verification },
		event: revertLink.event, unproved: true,
	}
)

// revertLifetime is how long the owner of an address can revert its change: long
// enough to return from a holiday.
const revertLifetime = 7 * 24 * time.Hour

// issueLink adds a one-time token, and the event that carries it, sealed, to
// email-service, which mails it to an address. Older tokens of the purpose are
// revoked, except those that revert a change of address: a thief's second change
// must not revoke the owner's link.
func (a *Accounts) issueLink(ctx context.Context, c *Change, kind linkKind, to Email) {
	now, secret := a.time(), newSecret()
	t := OneTimeToken{
		Hash: hashSecret(secret), Purpose: kind.purpose, AccountID: c.Account.ID, Email: to.Address,
		CreatedAt: now, ExpiresAt: now.Add(kind.lifetime(a.lifetimes)),
		Unproved: kind.unproved,
	}
	c.NewTokens = append(c.NewTokens, t)
	if kind.purpose != LinkRevertEmail {
		c.revokeTokens(kind.purpose)
	}
	c.record(ctx, now, kind.event(event.Link{
		Email: to.Address, Name: c.Account.Name, ExpiresAt: t.ExpiresAt,
		Token: a.links.Seal(secret, event.LinkContext(kind.event(event.Link{}), c.Account.ID)),
	}))
}

// useLink changes the owner of a link by Store.UseToken and returns the changed
// account. It fails with ErrTokenInvalid or ErrTokenExpired.
func (a *Accounts) useLink(ctx context.Context, purpose LinkPurpose, secret string, decide func(ctx context.Context, t OneTimeToken, c *Change) error) (Account, error) {
	var changed Account
	var revoked []string
	err := a.store.UseToken(ctx, purpose, hashPasted(secret), func(t OneTimeToken, c *Change) error {
		if !a.time().Before(t.ExpiresAt) {
			return ErrTokenExpired
		}
		if err := decide(actAs(ctx, c.Account), t, c); err != nil {
			return err
		}
		// Failed attempts at codes stay: a mailbox must not weaken a second factor. From the
		// network that is known now they do not count.
		c.MailProof = &MailProof{At: a.time(), Attempts: FailedAttempt{
			Kind: passwordAttempt, EmailKey: c.Account.Email.Key, Network: event.OriginFrom(ctx).Network(),
		}}
		changed, revoked = c.Account, c.revokedSessions()
		return nil
	})
	if err != nil {
		return Account{}, err
	}
	a.revoked.Revoke(revoked...)
	return changed, nil
}

// CheckLink returns the address that a link was mailed to. It uses and locks nothing,
// so the link may become invalid a moment later. It fails as using the link would:
// with ErrTokenInvalid, ErrTokenExpired or ErrEmailTaken.
func (a *Accounts) CheckLink(ctx context.Context, purpose LinkPurpose, secret string) (string, error) {
	t, _, err := a.checkLink(ctx, purpose, secret)
	return t.Email, err
}

// checkLink is CheckLink that returns the link and its account.
func (a *Accounts) checkLink(ctx context.Context, purpose LinkPurpose, secret string) (OneTimeToken, Account, error) {
	t, owner, err := a.store.TokenOwner(ctx, purpose, hashPasted(secret))
	if err != nil {
		return OneTimeToken{}, Account{}, err
	}
	forCurrentAddress := purpose == LinkVerifyEmail || purpose == LinkResetPassword
	needsActive := purpose == LinkResetPassword || purpose == LinkChangeEmail
	switch {
	case !a.time().Before(t.ExpiresAt):
		return OneTimeToken{}, Account{}, ErrTokenExpired
	case forCurrentAddress && t.Email != owner.Email.Address, needsActive && owner.Status != Active:
		return OneTimeToken{}, Account{}, ErrTokenInvalid
	case !forCurrentAddress:
		if err := a.checkAvailable(ctx, t); err != nil {
			return OneTimeToken{}, Account{}, err
		}
	}
	return t, owner, nil
}

// checkAvailable fails with ErrEmailTaken if another account has the address that a
// link was mailed to.
func (a *Accounts) checkAvailable(ctx context.Context, t OneTimeToken) error {
	email, emailErr := ParseEmail(t.Email)
	if emailErr != nil {
		return ErrTokenInvalid
	}
	switch other, err := a.store.AccountByEmail(ctx, email.Key); {
	case errors.Is(err, ErrNotFound):
		return nil
	case err != nil:
		return err
	case other.ID != t.AccountID:
		return ErrEmailTaken
	}
	return nil
}

// newSecret returns 256 random bits in the characters of a URL.
func newSecret() string {
	var b [32]byte
	rand.Read(b[:])
	return base64.RawURLEncoding.EncodeToString(b[:])
}

func hashSecret(secret string) []byte {
	sum := sha256.Sum256([]byte(secret))
	return sum[:]
}

// hashPasted is hashSecret for the token of a link, which people copy from a mail that may
// have broken it into lines: it ignores spaces, invisible characters, and the = before a
// soft line break (RFC 2045, 6.7). A token has none of them.
func hashPasted(secret string) []byte {
	return hashSecret(strings.Map(func(r rune) rune {
		if unicode.IsSpace(r) || unicode.Is(unicode.Cf, r) || r == '=' {
			return -1
		}
		return r
	}, secret))
}
