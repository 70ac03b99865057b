package api

import (
	"net/http"

	"github.com/headgate/headgate/pkg/web"
	"github.com/headgate/headgate/services/auth-service/internal/account"
)

func (a *api) verify(w http.ResponseWriter, r *http.Request) error {
	return a.useLink(w, r, a.accounts.VerifyEmail)
}

func (a *api) confirmEmail(w http.ResponseWriter, r *http.Request) error {
	return a.useLink(w, r, a.accounts.ConfirmEmail)
}

func (a *api) revertEmail(w http.ResponseWriter, r *http.Request) error {
	return a.useLink(w, r, a.accounts.RevertEmail)
}

func (a *api) resend(w http.ResponseWriter, r *http.Request) error {
	return a.requestMail(w, r, a.accounts.ResendVerification)
}

func (a *api) changeEmail(w http.ResponseWriter, r *http.Request) error {
	in, err := web.Read[struct {
		NewEmail        string `json:"newEmail"`
		CurrentPassword string `json:"currentPassword"`
		Proof           string `json:"proof"`
	}](w, r)
	if err != nil {
		return err
	}
	if err := a.accounts.ChangeEmail(r.Context(), web.Caller(r), in.NewEmail, account.Confirmation{Password: in.CurrentPassword, Proof: in.Proof}); err != nil {
		return err
	}
	return checkEmail(w)
}
