package api

import (
	"net/http"

	"github.com/headgate/headgate/pkg/web"
)

func (a *api) reauthenticate(w http.ResponseWriter, r *http.Request) error {
	in, err := web.Read[struct {
		Password string `json:"password"`
		Code     string `json:"code"`
	}](w, r)
	if err != nil {
		return err
	}
	if err := a.accounts.Reauthenticate(r.Context(), web.Caller(r), in.Password, in.Code); err != nil {
		return err
	}
	return web.OK(w, http.StatusOK, struct{}{})
}
