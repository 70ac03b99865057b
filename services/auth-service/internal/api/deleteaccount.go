package api

import (
	"net/http"

	"github.com/headgate/headgate/pkg/web"
	"github.com/headgate/headgate/services/auth-service/internal/account"
)

// deleted is the answer to a deletion. Other services delete their data when they
// receive the event.
type deleted struct {
	Status string `json:"status"`
}

func (a *api) deleteAccount(w http.ResponseWriter, r *http.Request) error {
	in, err := web.Read[confirmation](w, r)
	if err != nil {
		return err
	}
	if err := a.accounts.Delete(r.Context(), web.Caller(r), account.Confirmation(in)); err != nil {
		return err
	}
	return web.OK(w, http.StatusAccepted, deleted{"deleted"})
}
