package api

import (
	"net/http"

	"github.com/headgate/headgate/pkg/problem"
	"github.com/headgate/headgate/pkg/web"
	"github.com/headgate/headgate/services/auth-service/internal/account"
)

func (a *api) verify(w http.ResponseWriter, r *http.Request) error {
	return a.useProvedLink(w, r, a.accounts.VerifyEmail)
}

func (a *api) takeOver(w http.ResponseWriter, r *http.Request) error {
	in, err := web.Read[struct {
		Token       string `json:"token"`
		NewPassword string `json:"newPassword"`
	}](w, r)
	if err != nil {
		return err
	}
	if in.Token == "" {
		return problem.Validation(errTokenRequired)
	}
	owner, err := a.accounts.TakeOver(r.Context(), in.Token, in.NewPassword)
	if err != nil {
		return err
	}
	return sendUser(w, owner)
}

func (a *api) rejectSignUp(w http.ResponseWriter, r *http.Request) error {
	secret, err := readToken(w, r)
	if err != nil {
		return err
	}
	if err := a.accounts.RejectSignUp(r.Context(), secret); err != nil {
		return err
	}
	return web.OK(w, http.StatusOK, deleted{Status: "deleted"})
}

func (a *api) confirmEmail(w http.ResponseWriter, r *http.Request) error {
	return a.useProvedLink(w, r, a.accounts.ConfirmEmail)
}

func (a *api) revertEmail(w http.ResponseWriter, r *http.Request) error {
	return a.useProvedLink(w, r, a.accounts.RevertEmail)
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

func (a *api) mailExportLink(w http.ResponseWriter, r *http.Request) error {
	in, err := web.Read[web.ExportLink](w, r)
	if err != nil {
		return err
	}
	if err := a.accounts.MailExportLink(r.Context(), web.Caller(r), in.Secret, in.ExpiresAt); err != nil {
		return err
	}
	return web.OK(w, http.StatusAccepted, struct{}{})
}
