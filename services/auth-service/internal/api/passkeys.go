package api

import (
	"encoding/json"
	"net/http"

	"github.com/gorilla/mux"

	"github.com/headgate/headgate/pkg/web"
	"github.com/headgate/headgate/services/auth-service/internal/factor"
)

// ceremonyBody is the first step of a ceremony. Options are passed unchanged to
// navigator.credentials.create or get.
type ceremonyBody struct {
	PasskeyToken string `json:"passkeyToken"`
	Options      any    `json:"options"`
}

func (a *api) beginPasskey(w http.ResponseWriter, r *http.Request) error {
	with, err := readConfirmation(w, r)
	if err != nil {
		return err
	}
	b, err := a.accounts.BeginPasskey(r.Context(), web.Caller(r), with)
	if err != nil {
		return err
	}
	return web.OK(w, http.StatusCreated, ceremonyBody{b.Token, b.Options})
}

func (a *api) finishPasskey(w http.ResponseWriter, r *http.Request) error {
	in, err := web.Read[struct {
		PasskeyToken string          `json:"passkeyToken"`
		Name         string          `json:"name"`
		Credential   json.RawMessage `json:"credential"`
	}](w, r)
	if err != nil {
		return err
	}
	added, err := a.accounts.FinishPasskey(r.Context(), web.Caller(r), in.PasskeyToken, in.Name, in.Credential)
	if err != nil {
		return err
	}
	return web.OK(w, http.StatusCreated, factorOf(added))
}

func (a *api) renamePasskey(w http.ResponseWriter, r *http.Request) error {
	in, err := web.Read[struct {
		Name string `json:"name"`
	}](w, r)
	if err != nil {
		return err
	}
	renamed, err := a.accounts.RenamePasskey(r.Context(), web.Caller(r), mux.Vars(r)["id"], in.Name)
	if err != nil {
		return err
	}
	return web.OK(w, http.StatusOK, factorOf(renamed))
}

func (a *api) removePasskey(w http.ResponseWriter, r *http.Request) error {
	return a.removeFactor(w, r, factor.KindPasskey)
}

func (a *api) beginPasskeyLogin(w http.ResponseWriter, _ *http.Request) error {
	b, err := a.accounts.BeginPasskeyLogin()
	if err != nil {
		return err
	}
	return web.OK(w, http.StatusOK, ceremonyBody{b.Token, b.Options})
}

func (a *api) finishPasskeyLogin(w http.ResponseWriter, r *http.Request) error {
	in, err := web.Read[struct {
		PasskeyToken string          `json:"passkeyToken"`
		DeviceName   string          `json:"deviceName"`
		Credential   json.RawMessage `json:"credential"`
	}](w, r)
	if err != nil {
		return err
	}
	owner, t, err := a.accounts.FinishPasskeyLogin(r.Context(), in.PasskeyToken, in.DeviceName, in.Credential)
	if err != nil {
		return err
	}
	return sendSignedIn(w, owner, t)
}
