package api

import (
	"encoding/json"
	"net/http"

	"github.com/headgate/headgate/pkg/web"
	"github.com/headgate/headgate/services/auth-service/internal/account"
)

// confirmation is how a request confirms who sends it: with one of its fields.
type confirmation struct {
	Password string `json:"password"`
	Proof    string `json:"proof"`
}

// readConfirmation reads a body that may be missing.
func readConfirmation(w http.ResponseWriter, r *http.Request) (account.Confirmation, error) {
	if r.ContentLength == 0 {
		return account.Confirmation{}, nil
	}
	in, err := web.Read[confirmation](w, r)
	return account.Confirmation(in), err
}

func (a *api) reauthenticate(w http.ResponseWriter, r *http.Request) error {
	in, err := web.Read[struct {
		Password string `json:"password"`
		MailCode string `json:"mailCode"`
		Code     string `json:"code"`
	}](w, r)
	if err != nil {
		return err
	}
	proof, err := a.accounts.Reauthenticate(r.Context(), web.Caller(r), account.Reauthentication{
		Password: in.Password, MailCode: in.MailCode, Code: in.Code,
	})
	if err != nil {
		return err
	}
	return sendProof(w, proof)
}

func sendProof(w http.ResponseWriter, p account.Proof) error {
	return web.OK(w, http.StatusOK, struct {
		Proof     string `json:"proof"`
		ExpiresIn int    `json:"expiresIn"` // seconds
	}{p.Secret, int(p.ExpiresIn.Seconds())})
}

func (a *api) mailReauthCode(w http.ResponseWriter, r *http.Request) error {
	if err := a.accounts.MailReauthCode(r.Context(), web.Caller(r)); err != nil {
		return err
	}
	return checkEmail(w)
}

func (a *api) beginPasskeyReauth(w http.ResponseWriter, r *http.Request) error {
	b, err := a.accounts.BeginPasskeyReauth(web.Caller(r))
	if err != nil {
		return err
	}
	return web.OK(w, http.StatusOK, ceremonyBody{b.Token, b.Options})
}

func (a *api) finishPasskeyReauth(w http.ResponseWriter, r *http.Request) error {
	in, err := web.Read[struct {
		PasskeyToken string          `json:"passkeyToken"`
		Credential   json.RawMessage `json:"credential"`
	}](w, r)
	if err != nil {
		return err
	}
	proof, err := a.accounts.FinishPasskeyReauth(r.Context(), web.Caller(r), in.PasskeyToken, in.Credential)
	if err != nil {
		return err
	}
	return sendProof(w, proof)
}
