package account

import (
	"context"
	"errors"
	"time"

	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/pkg/problem"
	"github.com/headgate/headgate/pkg/token"
	"github.com/headgate/headgate/services/auth-service/internal/signing"
)

// RefreshOutcome says how a refresh token was exchanged.
type RefreshOutcome string

// The outcomes.
const (
	Rotated  RefreshOutcome = "rotated"
	Replayed RefreshOutcome = "replayed"
)

// The reasons for which sessions are revoked.
const (
	reasonLogout          = "logout"
	reasonLogoutAll       = "logout_all"
	reasonEnded           = "ended_by_owner"
	reasonReuse           = "refresh_token_reused"
	reasonAdmin           = "ended_by_admin"
	reasonRoleChanged     = "role_changed"
	reasonPasswordChanged = "password_changed"
	reasonPasswordReset   = "password_reset"
	reasonEmailReverted   = "email_change_reverted"
	reasonFactorsReset    = "mfa_reset"
	reasonDisabled        = "account_disabled"
	reasonDeleted         = "account_deleted"
)

// Refresh exchanges a refresh token, in one transaction with the session
// locked: the current one is rotated; the one before it gets the same successor
// again within the grace, so that two tabs never log each other out; an older
// one is a sign of theft and ends the session (RFC 9700, 4.14). It fails with
// ErrRefreshInvalid, signing.ErrRefreshExpired, ErrRefreshReused or ErrSessionRevoked.
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
			warning, err := notice(ctx, now, owner, c.AllowMail, event.SessionRefreshReused{
				SessionID: s.ID, Generation: claims.Generation, Email: owner.Email.Address, Name: owner.Name,
			})
			c.Events = append(c.Events, warning, s.revoke(ctx, now, reasonReuse))
			return err
		}
		c.Events = append(c.Events, event.New(ctx, now, owner.ID, event.SessionRefreshed{
			SessionID: s.ID, Generation: s.Generation, Replayed: outcome == Replayed,
		}))
		var err error
		tokens, err = a.issueTokens(owner, *s, now)
		return err
	})
	switch {
	case errors.Is(err, ErrSessionNotFound):
		// It went with its account: whoever has the token had it from us.
		return signing.Tokens{}, "", ErrSessionRevoked
	case err != nil:
		return signing.Tokens{}, "", err
	case reused:
		a.revoked.Revoke(claims.SessionID)
		return signing.Tokens{}, "", problem.Recorded(ErrRefreshReused)
	}
	return tokens, outcome, nil
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

// Logout ends the caller's session, and the one of the refresh token if one is
// given and is the caller's as well. Sessions that have ended already are left
// as they are. It fails with ErrRefreshInvalid for a token that is none of the
// caller's.
func (a *Accounts) Logout(ctx context.Context, caller token.Identity, refresh string) error {
	sessions := []string{caller.SessionID}
	if refresh != "" {
		claims, err := a.issuer.VerifyExpiredRefresh(refresh)
		if err != nil || claims.AccountID != caller.UserID {
			return signing.ErrRefreshInvalid
		}
		if claims.SessionID != caller.SessionID {
			sessions = append(sessions, claims.SessionID)
		}
	}
	for _, id := range sessions {
		err := a.revokeSession(ctx, caller, id, func(ctx context.Context, s *Session, now time.Time) event.Event {
			s.RevokedAt, s.RevokedReason = now, reasonLogout
			return event.New(ctx, now, s.AccountID, event.UserLoggedOut{SessionID: s.ID})
		})
		if err != nil && !errors.Is(err, ErrSessionNotFound) {
			return err
		}
	}
	return nil
}

// RevokeSession ends one of the caller's sessions. It fails with
// ErrSessionNotFound, also for somebody else's and for one that has ended.
func (a *Accounts) RevokeSession(ctx context.Context, caller token.Identity, id string) error {
	return a.revokeSession(ctx, caller, id, func(ctx context.Context, s *Session, now time.Time) event.Event {
		return s.revoke(ctx, now, reasonEnded)
	})
}

func (a *Accounts) revokeSession(ctx context.Context, caller token.Identity, id string, end func(context.Context, *Session, time.Time) event.Event) error {
	err := a.store.UpdateSession(ctx, id, func(c *SessionChange) error {
		s, now := &c.Session, a.time()
		if s.AccountID != caller.UserID || s.Revoked() || !now.Before(s.ExpiresAt) {
			return ErrSessionNotFound
		}
		c.Events = append(c.Events, end(actAs(ctx, c.Owner), s, now))
		return nil
	})
	if err == nil {
		a.revoked.Revoke(id)
	}
	return err
}

// LogoutAll ends all of the caller's sessions and returns how many they were.
func (a *Accounts) LogoutAll(ctx context.Context, caller token.Identity) (int, error) {
	n := 0
	err := a.update(ctx, caller.UserID, func(c *Change) error {
		n = c.revokeSessions(ctx, a.time(), reasonLogoutAll)
		return nil
	})
	return n, err
}

// Revocations returns the sessions that were ended since a time, for the
// verifiers of other processes.
func (a *Accounts) Revocations(ctx context.Context, since time.Time) (token.Snapshot, error) {
	return a.store.Revocations(ctx, since)
}

// Sessions returns up to limit of the caller's sessions that live, newest first,
// after the one with the id after.
func (a *Accounts) Sessions(ctx context.Context, caller token.Identity, after string, limit int) ([]Session, error) {
	return a.store.Sessions(ctx, caller.UserID, a.time(), after, limit)
}

// Delete deletes the caller's account, for good, if password is theirs. It
// fails with ErrCurrentPassword or ErrLastAdmin.
func (a *Accounts) Delete(ctx context.Context, caller token.Identity, current string) error {
	owner, err := a.confirmPassword(ctx, caller, "password", current)
	if err != nil {
		return err
	}
	return a.updateOwnSensitive(ctx, caller, owner, func(c *Change) error {
		a.delete(ctx, c)
		return nil
	})
}

func (a *Accounts) delete(ctx context.Context, c *Change) {
	now := a.time()
	c.revokeSessions(ctx, now, reasonDeleted)
	c.Deleted = true
	c.record(ctx, now, event.UserDeleted{Role: c.Account.Role, Status: c.Account.Status})
}
