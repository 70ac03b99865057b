package api

import (
	"net/http"
	"time"

	"github.com/headgate/headgate/pkg/cursor"
	"github.com/headgate/headgate/pkg/problem"
	"github.com/headgate/headgate/pkg/web"
	"github.com/headgate/headgate/services/auth-service/internal/account"
)

type newTokens struct {
	Tokens tokens `json:"tokens"`
}

func (a *api) refresh(w http.ResponseWriter, r *http.Request) error {
	in, err := web.Read[struct {
		RefreshToken string `json:"refreshToken"`
	}](w, r)
	if err != nil {
		return err
	}
	if in.RefreshToken == "" {
		return problem.Validation(problem.Field{Field: "refreshToken", Code: "required", Message: "refreshToken is required."})
	}
	t, outcome, err := a.accounts.Refresh(r.Context(), in.RefreshToken)
	if err != nil {
		return err
	}
	w.Header().Set("X-Refresh-Outcome", string(outcome))
	return web.OK(w, http.StatusOK, newTokens{tokensOf(t)})
}

func (a *api) logout(w http.ResponseWriter, r *http.Request) error {
	var in struct {
		RefreshToken string `json:"refreshToken"`
	}
	if r.ContentLength != 0 {
		var err error
		if in, err = web.Read[struct {
			RefreshToken string `json:"refreshToken"`
		}](w, r); err != nil {
			return err
		}
	}
	if err := a.accounts.Logout(r.Context(), web.Caller(r), in.RefreshToken); err != nil {
		return err
	}
	return web.OK(w, http.StatusOK, struct{}{})
}

type session struct {
	ID         string    `json:"id"`
	Current    bool      `json:"current"`
	DeviceName string    `json:"deviceName"`
	UserAgent  string    `json:"userAgent"`
	IP         string    `json:"ip"`
	CreatedAt  time.Time `json:"createdAt"`
	LastUsedAt time.Time `json:"lastUsedAt"`
	ExpiresAt  time.Time `json:"expiresAt"`
}

func (a *api) sessions(w http.ResponseWriter, r *http.Request) error {
	page, err := web.QueryOf(r).Page()
	if err != nil {
		return err
	}
	caller := web.Caller(r)
	live, err := a.accounts.Sessions(r.Context(), caller, page.After, page.Limit+1)
	if err != nil {
		return err
	}
	list := make([]session, 0, len(live))
	for _, s := range live {
		list = append(list, session{
			ID: s.ID, Current: s.ID == caller.SessionID, DeviceName: s.DeviceName, UserAgent: s.UserAgent, IP: s.IP,
			CreatedAt: s.CreatedAt, LastUsedAt: s.LastUsedAt, ExpiresAt: s.ExpiresAt,
		})
	}
	return web.SendPage(w, page, list, func(s session) cursor.Position { return cursor.At(s.CreatedAt, s.ID) })
}

// revoked is the number of sessions that a request ended.
type revoked struct {
	Revoked int `json:"revoked"`
}

func (a *api) logoutAll(w http.ResponseWriter, r *http.Request) error {
	n, err := a.accounts.LogoutAll(r.Context(), web.Caller(r))
	if err != nil {
		return err
	}
	return web.OK(w, http.StatusOK, revoked{n})
}

func (a *api) revokeAll(w http.ResponseWriter, r *http.Request) error {
	var in struct {
		Before time.Time `json:"before"`
	}
	if r.ContentLength != 0 {
		var err error
		if in, err = web.Read[struct {
			Before time.Time `json:"before"`
		}](w, r); err != nil {
			return err
		}
	}
	before, err := a.accounts.RevokeAll(r.Context(), in.Before)
	if err != nil {
		return err
	}
	return web.OK(w, http.StatusOK, struct {
		Before time.Time `json:"before"`
	}{before})
}

func (a *api) revokeSession(w http.ResponseWriter, r *http.Request) error {
	id, err := pathID(r, account.ErrSessionNotFound)
	if err != nil {
		return err
	}
	if err := a.accounts.RevokeSession(r.Context(), web.Caller(r), id); err != nil {
		return err
	}
	return web.OK(w, http.StatusOK, struct{}{})
}
