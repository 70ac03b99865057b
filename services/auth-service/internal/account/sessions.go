package account

import (
	"context"
	"time"

	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/pkg/token"
)

// Outcome says how a refresh token was exchanged.
type Outcome string

// The outcomes.
const (
	Rotated  Outcome = "rotated"
	Replayed Outcome = "replayed"
)

// The reasons for which sessions are revoked.
const (
	reasonLogout = "logout"
	reasonReuse  = "refresh_token_reused"
)

// Refresh exchanges a refresh token, in one transaction with the session
// locked: the current one is rotated; the one before it gets the same successor
// again within the grace, so that two tabs never log each other out; an older
// one is a sign of theft and ends the session (RFC 9700, 4.14). It fails with
// ErrRefreshInvalid, ErrRefreshExpired, ErrRefreshReused or ErrSessionRevoked.
func (a *Accounts) Refresh(ctx context.Context, raw string) (Tokens, Outcome, error) {
	claims, err := a.issuer.readRefresh(raw, a.now)
	if err != nil {
		return Tokens{}, "", err
	}
	var (
		tokens  Tokens
		outcome Outcome
		reused  bool
	)
	err = a.store.UpdateSession(ctx, claims.SessionID, func(s *Session, owner Account) ([]event.Event, error) {
		now := a.time()
		ctx := actAs(ctx, owner)
		switch {
		case s.Revoked() || owner.Status != Active:
			return nil, ErrSessionRevoked
		case !now.Before(s.ExpiresAt):
			return nil, ErrRefreshExpired
		case claims.Generation == s.Generation:
			outcome = Rotated
			a.rotate(ctx, s, now)
		case claims.Generation == s.Generation-1 && now.Sub(s.RotatedAt) <= a.lifetimes.RefreshGrace:
			outcome = Replayed
		case claims.Generation > s.Generation:
			return nil, ErrRefreshInvalid
		default:
			reused = true
			s.revoke(now, reasonReuse)
			return []event.Event{
				event.New(ctx, now, owner.ID, event.SessionRefreshReused{
					SessionID: s.ID, Generation: claims.Generation, Email: owner.Email.Address, Name: owner.Name,
				}),
				event.New(ctx, now, owner.ID, event.SessionRevoked{SessionID: s.ID, Reason: reasonReuse}),
			}, nil
		}
		var err error
		if tokens, err = a.issuer.tokens(owner, *s, a.lifetimes, now); err != nil {
			return nil, err
		}
		return []event.Event{event.New(ctx, now, owner.ID, event.SessionRefreshed{
			SessionID: s.ID, Generation: s.Generation, Replayed: outcome == Replayed,
		})}, nil
	})
	switch {
	case err != nil:
		return Tokens{}, "", err
	case reused:
		a.revoked.Revoke(claims.SessionID)
		return Tokens{}, "", ErrRefreshReused
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
	s.UserAgent, s.IP = origin.UserAgent, origin.IP
}

// Logout ends the caller's session, and the one of the refresh token if one is
// given and is the caller's as well. Sessions that have ended already are left
// as they are. It fails with ErrRefreshInvalid for a token that is none of the
// caller's.
func (a *Accounts) Logout(ctx context.Context, caller token.Identity, refresh string) error {
	sessions := []string{caller.SessionID}
	if refresh != "" {
		claims, err := a.issuer.readRefresh(refresh, func() time.Time { return time.Time{} })
		if err != nil || claims.Subject != caller.UserID {
			return ErrRefreshInvalid
		}
		if claims.SessionID != caller.SessionID {
			sessions = append(sessions, claims.SessionID)
		}
	}
	for _, id := range sessions {
		err := a.store.UpdateSession(ctx, id, func(s *Session, owner Account) ([]event.Event, error) {
			if s.Revoked() || s.AccountID != caller.UserID {
				return nil, nil
			}
			now := a.time()
			s.revoke(now, reasonLogout)
			return []event.Event{event.New(actAs(ctx, owner), now, owner.ID, event.UserLoggedOut{SessionID: s.ID})}, nil
		})
		if err != nil {
			return err
		}
		a.revoked.Revoke(id)
	}
	return nil
}

// Revocations returns the sessions that were ended since a time, for the
// verifiers of other processes.
func (a *Accounts) Revocations(ctx context.Context, since time.Time) (token.Snapshot, error) {
	return a.store.Revocations(ctx, since)
}

// Sessions returns the caller's sessions that live, newest first.
func (a *Accounts) Sessions(ctx context.Context, caller token.Identity) ([]Session, error) {
	return a.store.Sessions(ctx, caller.UserID, a.time())
}
