package api

import (
	"net/http"
	"time"

	"github.com/headgate/headgate/pkg/web"
	"github.com/headgate/headgate/services/auth-service/internal/account"
)

// deleted is the answer to a deletion. Other services delete their data when they
// receive the event.
type deleted struct {
	Status   string    `json:"status"` // deleted or scheduled
	DeleteAt time.Time `json:"deleteAt,omitzero"`
}

func (a *api) deleteAccount(w http.ResponseWriter, r *http.Request) error {
	in, err := web.Read[confirmation](w, r)
	if err != nil {
		return err
	}
	at, err := a.accounts.Delete(r.Context(), web.Caller(r), account.Confirmation(in))
	if err != nil {
		return err
	}
	if at.IsZero() {
		return web.OK(w, http.StatusAccepted, deleted{Status: "deleted"})
	}
	return web.OK(w, http.StatusAccepted, deleted{Status: "scheduled", DeleteAt: at.UTC()})
}
