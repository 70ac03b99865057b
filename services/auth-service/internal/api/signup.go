package api

import (
	"net/http"

	"github.com/headgate/headgate/pkg/problem"
	"github.com/headgate/headgate/pkg/web"
	"github.com/headgate/headgate/services/auth-service/internal/account"
)

func (a *api) signup(w http.ResponseWriter, r *http.Request) error {
	in, err := web.Read[struct {
		Email    string `json:"email"`
		Password string `json:"password"`
		Name     string `json:"name"`
	}](w, r)
	if err != nil {
		return err
	}
	key, err := idempotencyKey(r)
	if err != nil {
		return err
	}
	out, replayed, err := a.accounts.Register(r.Context(), account.SignUp{Email: in.Email, Password: in.Password, Name: in.Name}, key)
	if err != nil {
		return err
	}
	if replayed {
		w.Header().Set("Idempotency-Replayed", "true")
	}
	switch {
	case out.Account.ID == "":
		return checkEmail(w)
	case out.Tokens == nil:
		return web.OK(w, http.StatusCreated, signedIn{User: userOf(out.Account)})
	}
	t := tokensOf(*out.Tokens)
	return web.OK(w, http.StatusCreated, signedIn{User: userOf(out.Account), Tokens: &t})
}

// idempotencyKey returns the Idempotency-Key of a request, or "" if there is none.
func idempotencyKey(r *http.Request) (string, error) {
	values := r.Header.Values("Idempotency-Key")
	if len(values) == 0 {
		return "", nil
	}
	if len(values) > 1 || values[0] == "" {
		return "", problem.Validation(problem.Field{Field: "Idempotency-Key", Code: "invalid_format", Message: "Idempotency-Key must be 1–255 visible ASCII characters."})
	}
	return values[0], nil
}
