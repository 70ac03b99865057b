package account

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"fmt"
	"math/big"
	"slices"
	"time"

	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/pkg/problem"
	"github.com/headgate/headgate/pkg/token"
)

// MailCode is a code that was mailed to the owner of a session, for a re-authentication
// in that session. A session has at most one, so a newer code replaces the older one.
type MailCode struct {
	Hash      string // empty if there is none
	Attempts  int    // wrong codes so far
	ExpiresAt time.Time
}

const (
	mailCodeLifetime = 10 * time.Minute
	mailCodeAttempts = 5
	mailCodeDigits   = 8 // the mail shows them as 1234-5678
)

// The failures of mailed codes.
var (
	ErrMailCodeInvalid = problem.New(problem.Unauthenticated, "mail_code_invalid", "Incorrect code. Use the code in the newest email.")
	ErrMailCodeExpired = problem.New(problem.Gone, "mail_code_expired", "The code has expired, was used, or had too many failed attempts. Request a new one (POST /api/v1/auth/reauthenticate/mail).")
)

// MailReauthCode mails a code for Reauthenticate to the address of the caller's account,
// which must be verified: otherwise the code would prove nothing. It proves as much as a
// link to choose a new password. It fails with ErrEmailNotVerified or ErrTooManyMails.
func (a *Accounts) MailReauthCode(ctx context.Context, caller token.Identity) error {
	code, err := newMailCode()
	if err != nil {
		return err
	}
	return a.updateOwn(ctx, caller, sessionOf(caller), func(c *Change, own *Session) error {
		if !c.Account.EmailVerified {
			return ErrEmailNotVerified
		}
		ok, err := c.AllowMail(ctx, mailReauth, c.Account.Email)
		if err != nil {
			return err
		}
		if !ok {
			return ErrTooManyMails
		}
		now := a.time()
		own.MailCode = MailCode{Hash: string(a.hashMailCode(own, code)[0]), ExpiresAt: now.Add(mailCodeLifetime)}
		c.record(ctx, now, event.UserReauthCodeIssued{
			Email: c.Account.Email.Address, Name: c.Account.Name, ExpiresAt: own.MailCode.ExpiresAt,
			Token: a.links.Seal(code[:mailCodeDigits/2]+"-"+code[mailCodeDigits/2:], event.LinkContext(event.UserReauthCodeIssued{}, c.Account.ID)),
		})
		return nil
	})
}

// checkMailCode reports whether a code is the session's newest one. A wrong code counts. It
// fails with ErrMailCodeExpired.
func (a *Accounts) checkMailCode(s *Session, code string, now time.Time) (bool, error) {
	stored := &s.MailCode
	if stored.Hash == "" || stored.Attempts >= mailCodeAttempts || !now.Before(stored.ExpiresAt) {
		return false, ErrMailCodeExpired
	}
	if slices.ContainsFunc(a.hashMailCode(s, code), func(hash []byte) bool { return hmac.Equal(hash, []byte(stored.Hash)) }) {
		return true, nil
	}
	stored.Attempts++
	return false, nil
}

// newMailCode returns a random code.
func newMailCode() (string, error) {
	n, err := rand.Int(rand.Reader, big.NewInt(1e8))
	if err != nil {
		return "", fmt.Errorf("make mail code: %w", err)
	}
	return fmt.Sprintf("%0*d", mailCodeDigits, n), nil
}

// hashMailCode returns the keyed hashes of a code for a session, of which the first is
// stored. A reader of the database could find so short a code from a plain hash.
func (a *Accounts) hashMailCode(s *Session, digits string) [][]byte {
	return a.fingerprintsOf([]byte("mail code\x00" + s.ID + "\x00" + digits))
}
