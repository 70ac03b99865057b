package api

import (
	"net/http"

	"github.com/gorilla/mux"

	"github.com/headgate/headgate/pkg/cursor"
	"github.com/headgate/headgate/pkg/web"
	"github.com/headgate/headgate/services/auth-service/internal/account"
)

func (a *api) resetFactors(w http.ResponseWriter, r *http.Request) error {
	id, err := pathID(r, account.ErrNotFound)
	if err != nil {
		return err
	}
	n, err := a.accounts.ResetFactors(r.Context(), web.Caller(r), id)
	if err != nil {
		return err
	}
	return web.OK(w, http.StatusOK, struct {
		Removed int `json:"removed"`
	}{n})
}

func (a *api) users(w http.ResponseWriter, r *http.Request) error {
	page, err := web.QueryOf(r).Page()
	if err != nil {
		return err
	}
	query := web.QueryOf(r)
	f := account.Filter{Query: query["q"], Role: query["role"], Status: query["status"]}
	found, err := a.accounts.Users(r.Context(), f, page.After, page.Limit+1)
	if err != nil {
		return err
	}
	list := make([]user, 0, len(found))
	for _, owner := range found {
		list = append(list, userOf(owner))
	}
	return web.SendPage(w, page, list, func(u user) cursor.Position { return cursor.At(u.CreatedAt, u.ID) })
}

// pathID returns the id in the path. If it is malformed, nothing can have it, and pathID
// fails with absent.
func pathID(r *http.Request, absent error) (string, error) {
	id := mux.Vars(r)["id"]
	if !web.ValidID(id) {
		return "", absent
	}
	return id, nil
}

func (a *api) user(w http.ResponseWriter, r *http.Request) error {
	id, err := pathID(r, account.ErrNotFound)
	if err != nil {
		return err
	}
	found, err := a.accounts.User(r.Context(), id)
	if err != nil {
		return err
	}
	return web.OK(w, http.StatusOK, userOf(found))
}

func (a *api) updateUser(w http.ResponseWriter, r *http.Request) error {
	in, err := web.Read[struct {
		Role   string `json:"role"`
		Status string `json:"status"`
	}](w, r)
	if err != nil {
		return err
	}
	id, err := pathID(r, account.ErrNotFound)
	if err != nil {
		return err
	}
	changed, err := a.accounts.UpdateUser(r.Context(), web.Caller(r), id, account.UserUpdate{Role: in.Role, Status: in.Status})
	if err != nil {
		return err
	}
	return web.OK(w, http.StatusOK, userOf(changed))
}

func (a *api) deleteUser(w http.ResponseWriter, r *http.Request) error {
	id, err := pathID(r, account.ErrNotFound)
	if err != nil {
		return err
	}
	if err := a.accounts.DeleteUser(r.Context(), web.Caller(r), id); err != nil {
		return err
	}
	return web.OK(w, http.StatusAccepted, deleted{Status: "deleted"})
}

func (a *api) revokeUserSessions(w http.ResponseWriter, r *http.Request) error {
	id, err := pathID(r, account.ErrNotFound)
	if err != nil {
		return err
	}
	n, err := a.accounts.RevokeUserSessions(r.Context(), id)
	if err != nil {
		return err
	}
	return web.OK(w, http.StatusOK, revoked{n})
}
