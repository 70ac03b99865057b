package account

import (
	"context"
	"errors"
	"time"

	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/pkg/token"
	"github.com/headgate/headgate/services/auth-service/internal/signing"
)

// Logout ends the caller's session, and the session of refresh if that token is
// given. Sessions that have ended already are left as they are. It fails with
// signing.ErrRefreshInvalid for a token of another account.
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
		err := a.revokeOwn(ctx, caller, id, func(ctx context.Context, s *Session, now time.Time) event.Event {
			s.RevokedAt, s.RevokedReason = now, reasonLogout
			return event.New(ctx, now, s.AccountID, event.UserLoggedOut{SessionID: s.ID})
		})
		if err != nil && !errors.Is(err, ErrSessionNotFound) {
			return err
		}
	}
	return nil
}

// LogoutAll ends all of the caller's sessions and returns their number.
func (a *Accounts) LogoutAll(ctx context.Context, caller token.Identity) (int, error) {
	n := 0
	err := a.update(ctx, caller.UserID, allSessions, func(c *Change) error {
		n = c.revokeSessions(ctx, a.time(), reasonLogoutAll)
		return nil
	})
	return n, err
}
