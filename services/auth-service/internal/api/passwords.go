package api

import (
	"net/http"

	"github.com/headgate/headgate/pkg/problem"
	"github.com/headgate/headgate/pkg/web"
)

func (a *api) forgot(w http.ResponseWriter, r *http.Request) error {
	return a.requestMail(w, r, a.accounts.ForgotPassword)
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
