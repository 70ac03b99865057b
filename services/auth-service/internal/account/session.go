package account

import (
	"context"
	"time"

	"github.com/google/uuid"

	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/services/auth-service/internal/signing"
)

// Session is one sign-in: a family of refresh tokens, of which the one with the
// current generation is valid.
type Session struct {
	ID            string
	AccountID     string
	Generation    int
	RotatedAt     time.Time
	DeviceName    string
	UserAgent     string
	IP            string
	Network       string // see event.Origin
	CreatedAt     time.Time
	LastUsedAt    time.Time
	ExpiresAt     time.Time // unless it is refreshed
	EndsAt        time.Time // even if it is refreshed
	RevokedAt     time.Time // zero while it is live
	RevokedReason string

	AuthenticatedAt time.Time // the last sign-in or re-authentication
	Proved          bool      // whether it began with a credential of a person who has proved the address

	Methods  Methods
	Proof    StoredProof
	MailCode MailCode
}

// The reasons for which sessions are revoked.
const (
	reasonLogout          = "logout"
	reasonLogoutAll       = "logout_all"
	reasonRevokedByOwner  = "ended_by_owner"
	reasonReuse           = "refresh_token_reused"
	reasonRevokedByAdmin  = "ended_by_admin"
	reasonRoleChanged     = "role_changed"
	reasonPasswordChanged = "password_changed"
	reasonPasswordReset   = "password_reset"
	reasonEmailReverted   = "email_change_reverted"
	reasonFactorsReset    = "mfa_reset"
	reasonFactorAdded     = "mfa_enrolled"
	reasonDisabled        = "account_disabled"
	reasonTooMany         = "too_many_sessions"

	// ReasonDeleted is that of an account which was deleted or will be.
	ReasonDeleted = "account_deleted"
)

// Revoked reports whether the session was ended before it expired.
func (s *Session) Revoked() bool { return !s.RevokedAt.IsZero() }

// revoke ends the session and returns the event to record.
func (s *Session) revoke(ctx context.Context, now time.Time, reason string) event.Event {
	s.RevokedAt, s.RevokedReason = now, reason
	return event.New(ctx, now, s.AccountID, event.SessionRevoked{SessionID: s.ID, Reason: reason})
}

// EndAsOldest ends the session because its account has more than Limits.Sessions, and returns
// the event to record.
func (s *Session) EndAsOldest(ctx context.Context, now time.Time) event.Event {
	return s.revoke(ctx, now, reasonTooMany)
}

// newSession returns a session of an account that has just signed in with its password.
func (a *Accounts) newSession(ctx context.Context, account Account, device string, by Methods) Session {
	now := a.time()
	origin := event.OriginFrom(ctx)
	return Session{
		ID: uuid.Must(uuid.NewV7()).String(), AccountID: account.ID,
		Generation: 1, RotatedAt: now,
		DeviceName: device, UserAgent: origin.UserAgent, IP: origin.IP, Network: origin.Network(),
		CreatedAt: now, LastUsedAt: now, AuthenticatedAt: now, Proved: account.PasswordProved, Methods: by,
		ExpiresAt: now.Add(min(a.lifetimes.RefreshIdle, a.lifetimes.Session)),
		EndsAt:    now.Add(a.lifetimes.Session),
	}
}

// firstTokens returns the tokens of a new session, and one of the device that it began on.
func (a *Accounts) firstTokens(owner Account, s Session, known Device) (signing.Tokens, error) {
	tokens, err := a.issueTokens(owner, s)
	tokens.Device = a.deviceToken(owner, known, s.CreatedAt)
	return tokens, err
}

// issueTokens returns the tokens of a session as it is now. Their life begins now, and not
// when the request began, whose password may have waited to be hashed.
func (a *Accounts) issueTokens(owner Account, s Session) (signing.Tokens, error) {
	claims := signing.Claims{
		AccountID: owner.ID, Role: owner.Role, Name: owner.Name,
		SessionID: s.ID, SessionAt: s.CreatedAt, Generation: s.Generation, RotatedAt: s.RotatedAt, ExpiresAt: s.ExpiresAt,
		AuthenticatedAt: s.AuthenticatedAt, Methods: s.Methods.AMR(), Level: s.Methods.Level(),
	}
	if owner.EmailVerified && s.Proved {
		claims.Email, claims.EmailVerified = owner.Email.Address, true
	}
	return a.issuer.Issue(claims, a.time())
}
