package api

import (
	"context"
	"net/http"

	"github.com/headgate/headgate/pkg/problem"
	"github.com/headgate/headgate/pkg/token"
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

var errTokenRequired = problem.Field{Field: "token", Code: "required", Message: "token is required: it is in the link."}

// readToken returns the token of a link.
func readToken(w http.ResponseWriter, r *http.Request) (string, error) {
	in, err := web.Read[struct {
		Token string `json:"token"`
	}](w, r)
	if err == nil && in.Token == "" {
		err = problem.Validation(errTokenRequired)
	}
	return in.Token, err
}

// useProvedLink uses a link that the caller's session or the password of its account may
// come with.
func (a *api) useProvedLink(w http.ResponseWriter, r *http.Request, use func(context.Context, string, account.Possession) (account.Account, error)) error {
	in, err := web.Read[struct {
		Token    string `json:"token"`
		Password string `json:"password"`
	}](w, r)
	if err != nil {
		return err
	}
	if in.Token == "" {
		return problem.Validation(errTokenRequired)
	}
	owner, err := use(r.Context(), in.Token, possessionOf(r.Context(), in.Password))
	if err != nil {
		return err
	}
	return sendUser(w, owner)
}

// possessionOf returns what a request shows; its caller is unknown without a valid token.
func possessionOf(ctx context.Context, password string) account.Possession {
	caller, _ := token.From(ctx)
	return account.Possession{Caller: caller, Password: password}
}

func sendUser(w http.ResponseWriter, owner account.Account) error {
	return web.OK(w, http.StatusOK, struct {
		User user `json:"user"`
	}{userOf(owner)})
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
