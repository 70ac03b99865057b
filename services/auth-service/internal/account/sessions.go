package account

import (
	"context"
	"time"

	"github.com/headgate/headgate/pkg/cursor"
	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/pkg/problem"
	"github.com/headgate/headgate/pkg/token"
)

// sessionStore is what lists of sessions read.
type sessionStore interface {
	// Sessions returns up to limit sessions of an account that are live at now,
	// newest first, from behind the one at after.
	Sessions(ctx context.Context, accountID string, now time.Time, after cursor.Position, limit int) ([]Session, error)
	// RevokeBefore revokes all sessions of all accounts that began before a time, and
	// stores e.
	RevokeBefore(ctx context.Context, before time.Time, e event.Event) error
	// Revocations is a token.LoadSnapshot.
	Revocations(ctx context.Context, since time.Time) (token.Snapshot, error)
}

// ErrSessionNotFound says that the caller has no such live session.
var ErrSessionNotFound = problem.New(problem.NotFound, "session_not_found", "Session not found.")

// Sessions returns up to limit of the caller's live sessions, newest first, after
// the one at after.
func (a *Accounts) Sessions(ctx context.Context, caller token.Identity, after cursor.Position, limit int) ([]Session, error) {
	return a.store.Sessions(ctx, caller.UserID, a.time(), after, limit)
}

// Revocations returns the sessions that were revoked since a time, for the
// verifiers of other processes.
func (a *Accounts) Revocations(ctx context.Context, since time.Time) (token.Snapshot, error) {
	return a.store.Revocations(ctx, since)
}

// RevokeAll revokes all sessions of all accounts that began before a time, whatever their
// number, and returns the time. The zero time stands for now. Everybody who began a session
// in the current second has to sign in again, too: tokens know seconds only. It fails with a
// validation problem for a time in the future.
func (a *Accounts) RevokeAll(ctx context.Context, before time.Time) (time.Time, error) {
	now := a.time()
	if before.After(now) {
		return time.Time{}, problem.Validation(problem.Field{Field: "before", Code: "out_of_range", Message: "The time must not be in the future."})
	}
	if before.IsZero() {
		before = now.Add(time.Second)
	}
	before = before.UTC().Truncate(time.Second)
	if err := a.store.RevokeBefore(ctx, before, event.New(ctx, now, "", event.SessionsAllRevoked{Before: before})); err != nil {
		return time.Time{}, err
	}
	a.revoked.RevokeBefore(before)
	return before, nil
}

// RevokeSession ends one of the caller's sessions. It fails with ErrSessionNotFound,
// also for a session of another account and for one that has ended.
func (a *Accounts) RevokeSession(ctx context.Context, caller token.Identity, id string) error {
	return a.revokeOwn(ctx, caller, id, func(ctx context.Context, s *Session, now time.Time) event.Event {
		return s.revoke(ctx, now, reasonRevokedByOwner)
	})
}

// revokeOwn ends one of the caller's sessions by revoke, which returns the event to
// record. It fails with ErrSessionNotFound.
func (a *Accounts) revokeOwn(ctx context.Context, caller token.Identity, id string, revoke func(context.Context, *Session, time.Time) event.Event) error {
	err := a.store.UpdateSession(ctx, id, func(c *SessionChange) error {
		s, now := &c.Session, a.time()
		if s.AccountID != caller.UserID || s.Revoked() || !now.Before(s.ExpiresAt) {
			return ErrSessionNotFound
		}
		c.Events = append(c.Events, revoke(actAs(ctx, c.Owner), s, now))
		return nil
	})
	if err == nil {
		a.revoked.Revoke(id)
	}
	return err
}
