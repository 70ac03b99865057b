package api

import (
	"context"
	"net/http"

	"github.com/headgate/headgate/pkg/problem"
	"github.com/headgate/headgate/pkg/web"
	"github.com/headgate/headgate/services/auth-service/internal/account"
)

// status is the answer to requests whose outcome only a mail tells.
type status struct {
	Status string `json:"status"`
}

func checkEmail(w http.ResponseWriter) error {
	return web.OK(w, http.StatusAccepted, status{"check_email"})
}

func (a *api) verify(w http.ResponseWriter, r *http.Request) error {
	return a.useLink(w, r, a.accounts.VerifyEmail)
}

func (a *api) confirmEmail(w http.ResponseWriter, r *http.Request) error {
	return a.useLink(w, r, a.accounts.ConfirmEmail)
}

func (a *api) revertEmail(w http.ResponseWriter, r *http.Request) error {
	return a.useLink(w, r, a.accounts.RevertEmail)
}

var errTokenRequired = problem.Field{Field: "token", Code: "required", Message: "token is required: it is in the link."}

func (a *api) useLink(w http.ResponseWriter, r *http.Request, use func(context.Context, string) (account.Account, error)) error {
	in, err := web.Read[struct {
		Token string `json:"token"`
	}](w, r)
	if err != nil {
		return err
	}
	if in.Token == "" {
		return problem.Validation(errTokenRequired)
	}
	owner, err := use(r.Context(), in.Token)
	if err != nil {
		return err
	}
	return web.OK(w, http.StatusOK, struct {
		User user `json:"user"`
	}{userOf(owner)})
}

func (a *api) resend(w http.ResponseWriter, r *http.Request) error {
	return a.requestMail(w, r, a.accounts.ResendVerification)
}

func (a *api) forgot(w http.ResponseWriter, r *http.Request) error {
	return a.requestMail(w, r, a.accounts.ForgotPassword)
}

func (a *api) requestMail(w http.ResponseWriter, r *http.Request, request func(context.Context, string) error) error {
	in, err := web.Read[struct {
		Email string `json:"email"`
	}](w, r)
	if err != nil {
		return err
	}
	if err := request(r.Context(), in.Email); err != nil {
		return err
	}
	return checkEmail(w)
}

func (a *api) reset(w http.ResponseWriter, r *http.Request) error {
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
	if err := a.accounts.ResetPassword(r.Context(), in.Token, in.NewPassword); err != nil {
		return err
	}
	return web.OK(w, http.StatusOK, struct{}{})
}

func (a *api) changePassword(w http.ResponseWriter, r *http.Request) error {
	in, err := web.Read[struct {
		CurrentPassword string `json:"currentPassword"`
		NewPassword     string `json:"newPassword"`
	}](w, r)
	if err != nil {
		return err
	}
	t, err := a.accounts.ChangePassword(r.Context(), web.Caller(r), in.CurrentPassword, in.NewPassword)
	if err != nil {
		return err
	}
	return web.OK(w, http.StatusOK, newTokens{tokensOf(t)})
}

func (a *api) changeEmail(w http.ResponseWriter, r *http.Request) error {
	in, err := web.Read[struct {
		NewEmail        string `json:"newEmail"`
		CurrentPassword string `json:"currentPassword"`
	}](w, r)
	if err != nil {
		return err
	}
	if err := a.accounts.ChangeEmail(r.Context(), web.Caller(r), in.NewEmail, in.CurrentPassword); err != nil {
		return err
	}
	return checkEmail(w)
}
