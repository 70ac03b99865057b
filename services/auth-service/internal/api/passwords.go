package api

import (
	"net/http"

	"github.com/headgate/headgate/pkg/problem"
	"github.com/headgate/headgate/pkg/web"
	"github.com/headgate/headgate/services/auth-service/internal/account"
)

func (a *api) forgot(w http.ResponseWriter, r *http.Request) error {
	return a.requestMail(w, r, a.accounts.ForgotPassword)
}

func (a *api) reset(w http.ResponseWriter, r *http.Request) error {
	in, err := web.Read[struct {
		Token          string `json:"token"`
		NewPassword    string `json:"newPassword"`
		RemovePasskeys *bool  `json:"removePasskeys"`
	}](w, r)
	if err != nil {
		return err
	}
	if in.Token == "" {
		return problem.Validation(errTokenRequired)
	}
	// Whoever resets a password has often lost control of the account.
	to := account.NewPassword{Password: in.NewPassword, RemovePasskeys: in.RemovePasskeys == nil || *in.RemovePasskeys}
	replaced, err := a.accounts.ResetPassword(r.Context(), in.Token, to)
	if err != nil {
		return err
	}
	return web.OK(w, http.StatusOK, replacedOf(replaced))
}

// replaced is what a new password has ended, and what can still sign in.
type replaced struct {
	SessionsEnded   int          `json:"sessionsEnded"`
	Passkeys        []factorBody `json:"passkeys"`
	RemovedPasskeys []factorBody `json:"removedPasskeys"`
}

func replacedOf(r account.Replaced) replaced {
	return replaced{SessionsEnded: r.SessionsEnded, Passkeys: factorsOf(r.Passkeys), RemovedPasskeys: factorsOf(r.RemovedPasskeys)}
}

func (a *api) changePassword(w http.ResponseWriter, r *http.Request) error {
	in, err := web.Read[struct {
		CurrentPassword string `json:"currentPassword"`
		NewPassword     string `json:"newPassword"`
		RemovePasskeys  bool   `json:"removePasskeys"`
	}](w, r)
	if err != nil {
		return err
	}
	to := account.NewPassword{Password: in.NewPassword, RemovePasskeys: in.RemovePasskeys}
	t, done, err := a.accounts.ChangePassword(r.Context(), web.Caller(r), in.CurrentPassword, to)
	if err != nil {
		return err
	}
	return web.OK(w, http.StatusOK, struct {
		newTokens
		replaced
	}{newTokens{tokensOf(t)}, replacedOf(done)})
}

func (a *api) removePassword(w http.ResponseWriter, r *http.Request) error {
	with, err := readConfirmation(w, r)
	if err != nil {
		return err
	}
	if err := a.accounts.RemovePassword(r.Context(), web.Caller(r), with); err != nil {
		return err
	}
	return web.OK(w, http.StatusOK, struct{}{})
}
