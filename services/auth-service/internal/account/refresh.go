package account

import (
	"context"
	"errors"
	"time"

	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/pkg/problem"
	"github.com/headgate/headgate/services/auth-service/internal/signing"
)

// sessionUpdater is what refresh and logout store.
type sessionUpdater interface {
	// UpdateSession locks a session, lets decide change it, and stores the result.
	// It stores nothing if decide fails. It fails with ErrSessionNotFound. The owner
	// is not locked: whatever takes rights from an account revokes its sessions.
	UpdateSession(ctx context.Context, id string, decide func(c *SessionChange) error) error
}

// SessionChange is a locked session and what changes about it.
type SessionChange struct {
	Session   Session
	Owner     Account // not locked
	Events    []event.Event
	AllowMail AllowMail
}

// RefreshOutcome is how a refresh token was exchanged.
type RefreshOutcome string

// The outcomes. A rotated token got a new successor, a replayed one the successor
// that it already had.
const (
	Rotated  RefreshOutcome = "rotated"
	Replayed RefreshOutcome = "replayed"
)

// The failures of a refresh, besides those of package signing.
var (
	ErrRefreshReused  = problem.New(problem.Unauthenticated, "refresh_token_reused", "This refresh token was already used. For security, the session was ended. Sign in again.")
	ErrSessionRevoked = problem.New(problem.Unauthenticated, "session_revoked", "This session has ended. Sign in again.")
)

// Refresh exchanges a refresh token while its session is locked. The current token
// is rotated. Its predecessor gets the same successor again within
// Lifetimes.RefreshGrace, so that two browser tabs do not sign each other out. An
// older token has been used twice, which indicates theft, and ends the session (RFC
// 9700, 4.14). It fails with signing.ErrRefreshInvalid, signing.ErrRefreshExpired,
// ErrRefreshReused or ErrSessionRevoked.
func (a *Accounts) Refresh(ctx context.Context, raw string) (signing.Tokens, RefreshOutcome, error) {
	claims, err := a.issuer.VerifyRefresh(raw, a.now())
	if err != nil {
		return signing.Tokens{}, "", err
	}
	var (
		tokens  signing.Tokens
		outcome RefreshOutcome
		reused  bool
	)
	err = a.store.UpdateSession(ctx, claims.SessionID, func(c *SessionChange) error {
		s, owner, now := &c.Session, c.Owner, a.time()
		ctx := actAs(ctx, owner)
		switch {
		case s.Revoked() || owner.Status != Active:
			return ErrSessionRevoked
		case !now.Before(s.ExpiresAt):
			return signing.ErrRefreshExpired
		case claims.Generation == s.Generation:
			outcome = Rotated
			a.rotate(ctx, s, now)
		case claims.Generation == s.Generation-1 && now.Sub(s.RotatedAt) <= a.lifetimes.RefreshGrace:
			outcome = Replayed
		case claims.Generation > s.Generation:
			return signing.ErrRefreshInvalid
		default:
			reused = true
			return c.revokeReused(ctx, now, claims.Generation)
		}
		c.Events = append(c.Events, event.New(ctx, now, owner.ID, event.SessionRefreshed{
			SessionID: s.ID, Generation: s.Generation, Replayed: outcome == Replayed,
		}))
		var err error
		tokens, err = a.issueTokens(owner, *s)
		return err
	})
	switch {
	case errors.Is(err, ErrSessionNotFound):
		// The token is ours, so its session existed: it was deleted with its account.
		return signing.Tokens{}, "", ErrSessionRevoked
	case err != nil:
		return signing.Tokens{}, "", err
	case reused:
		a.revoked.Revoke(claims.SessionID)
		return signing.Tokens{}, "", problem.Recorded(ErrRefreshReused)
	}
	return tokens, outcome, nil
}

// revokeReused ends a session of which an old refresh token was used again, and
// warns its owner.
func (c *SessionChange) revokeReused(ctx context.Context, now time.Time, generation int) error {
	warning, err := notice(ctx, now, c.Owner, c.AllowMail, event.SessionRefreshReused{
		SessionID: c.Session.ID, Generation: generation, Email: c.Owner.Email.Address, Name: c.Owner.Name,
	})
	c.Events = append(c.Events, warning, c.Session.revoke(ctx, now, reasonReuse))
	return err
}

func (a *Accounts) rotate(ctx context.Context, s *Session, now time.Time) {
	s.Generation++
	s.RotatedAt, s.LastUsedAt = now, now
	s.ExpiresAt = now.Add(a.lifetimes.RefreshIdle)
	if s.ExpiresAt.After(s.EndsAt) {
		s.ExpiresAt = s.EndsAt
	}
	origin := event.OriginFrom(ctx)
	s.UserAgent, s.IP, s.Network = origin.UserAgent, origin.IP, origin.Network()
}
