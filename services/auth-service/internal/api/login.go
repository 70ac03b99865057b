package api

import (
	"net/http"

	"github.com/headgate/headgate/pkg/web"
	"github.com/headgate/headgate/services/auth-service/internal/account"
	"github.com/headgate/headgate/services/auth-service/internal/signing"
)

func (a *api) login(w http.ResponseWriter, r *http.Request) error {
	in, err := web.Read[struct {
		Email      string `json:"email"`
		Password   string `json:"password"`
		DeviceName string `json:"deviceName"`

		DeviceToken string `json:"deviceToken"`
	}](w, r)
	if err != nil {
		return err
	}
	out, err := a.accounts.Login(r.Context(), account.Credentials{Email: in.Email, Password: in.Password, DeviceName: in.DeviceName, DeviceToken: in.DeviceToken})
	if err != nil {
		return err
	}
	if out.MFA != nil {
		return web.OK(w, http.StatusOK, mfaRequired{
			Status: "mfa_required", MFAToken: out.MFA.Token, Factors: out.MFA.Factors, ExpiresIn: int(out.MFA.ExpiresIn.Seconds()),
		})
	}
	return sendSignedIn(w, out.Account, out.Tokens)
}

func sendSignedIn(w http.ResponseWriter, owner account.Account, t signing.Tokens) error {
	issued := tokensOf(t)
	return web.OK(w, http.StatusOK, signedIn{User: userOf(owner), Tokens: &issued})
}

type mfaRequired struct {
	Status    string   `json:"status"`
	MFAToken  string   `json:"mfaToken"`
	Factors   []string `json:"factors"`
	ExpiresIn int      `json:"expiresIn"` // seconds
}

func (a *api) challenge(w http.ResponseWriter, r *http.Request) error {
	in, err := web.Read[struct {
		MFAToken    string `json:"mfaToken"`
		Code        string `json:"code"`
		DeviceToken string `json:"deviceToken"`
	}](w, r)
	if err != nil {
		return err
	}
	owner, t, err := a.accounts.Challenge(r.Context(), in.MFAToken, in.Code, in.DeviceToken)
	if err != nil {
		return err
	}
	return sendSignedIn(w, owner, t)
}
