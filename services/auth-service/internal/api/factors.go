package api

import (
	"net/http"
	"time"

	"github.com/gorilla/mux"

	"github.com/headgate/headgate/pkg/web"
	"github.com/headgate/headgate/services/auth-service/internal/account"
	"github.com/headgate/headgate/services/auth-service/internal/factor"
)

type factorBody struct {
	ID         string     `json:"id"`
	Kind       string     `json:"kind"`
	Name       string     `json:"name"`
	CreatedAt  time.Time  `json:"createdAt"`
	LastUsedAt *time.Time `json:"lastUsedAt,omitempty"`
}

func factorOf(f account.Factor) factorBody {
	out := factorBody{ID: f.ID, Kind: f.Kind, Name: f.Name, CreatedAt: f.CreatedAt}
	if !f.LastUsedAt.IsZero() {
		out.LastUsedAt = &f.LastUsedAt
	}
	return out
}

func factorsOf(found []account.Factor) []factorBody {
	list := make([]factorBody, 0, len(found))
	for _, f := range found {
		list = append(list, factorOf(f))
	}
	return list
}

func (a *api) factors(w http.ResponseWriter, r *http.Request) error {
	found, codes, err := a.accounts.Factors(r.Context(), web.Caller(r))
	if err != nil {
		return err
	}
	return web.OK(w, http.StatusOK, struct {
		Factors           []factorBody `json:"factors"`
		RecoveryCodesLeft int          `json:"recoveryCodesLeft"`
	}{factorsOf(found), codes})
}

func (a *api) enrolTOTP(w http.ResponseWriter, r *http.Request) error {
	e, err := a.accounts.EnrolTOTP(r.Context(), web.Caller(r))
	if err != nil {
		return err
	}
	return web.OK(w, http.StatusCreated, struct {
		FactorID   string `json:"factorId"`
		Secret     string `json:"secret"`
		OTPAuthURL string `json:"otpauthUrl"`
	}{e.FactorID, e.Secret, e.URL})
}

// recoveryCodes are shown once: only their hashes are stored.
type recoveryCodes struct {
	RecoveryCodes []string `json:"recoveryCodes"`
}

func (a *api) confirmTOTP(w http.ResponseWriter, r *http.Request) error {
	in, err := web.Read[struct {
		Code     string `json:"code"`
		Password string `json:"password"`
		Proof    string `json:"proof"`
	}](w, r)
	if err != nil {
		return err
	}
	codes, err := a.accounts.ConfirmTOTP(r.Context(), web.Caller(r), account.TOTPConfirmation{
		Confirmation: account.Confirmation{Password: in.Password, Proof: in.Proof}, FactorID: mux.Vars(r)["id"], Code: in.Code,
	})
	if err != nil {
		return err
	}
	return web.OK(w, http.StatusOK, recoveryCodes{codes})
}

func (a *api) removeTOTP(w http.ResponseWriter, r *http.Request) error {
	return a.removeFactor(w, r, factor.KindTOTP)
}

func (a *api) removeFactor(w http.ResponseWriter, r *http.Request, kind string) error {
	in, err := web.Read[confirmation](w, r)
	if err != nil {
		return err
	}
	removal := account.FactorRemoval{Confirmation: account.Confirmation(in), Kind: kind, ID: mux.Vars(r)["id"]}
	if err := a.accounts.RemoveFactor(r.Context(), web.Caller(r), removal); err != nil {
		return err
	}
	return web.OK(w, http.StatusOK, struct{}{})
}

func (a *api) newCodes(w http.ResponseWriter, r *http.Request) error {
	with, err := readConfirmation(w, r)
	if err != nil {
		return err
	}
	codes, err := a.accounts.NewRecoveryCodes(r.Context(), web.Caller(r), with)
	if err != nil {
		return err
	}
	return web.OK(w, http.StatusOK, recoveryCodes{codes})
}
