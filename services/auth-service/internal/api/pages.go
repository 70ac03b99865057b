package api

import (
	"bytes"
	"context"
	"crypto/sha256"
	"embed"
	"encoding/base64"
	"errors"
	"fmt"
	"html/template"
	"mime"
	"net/http"

	"github.com/headgate/headgate/pkg/problem"
	"github.com/headgate/headgate/pkg/web"
	"github.com/headgate/headgate/services/auth-service/internal/account"
)

//go:embed pages
var pages embed.FS

// page is what the landing pages of mail links show.
type page struct {
	Style    template.CSS
	Title    string
	Message  string
	Fault    string // what was wrong with the form
	Action   string // where the form posts to; no form if empty
	Token    string
	Password bool // Does the form ask for a new password?
	Button   string
}

var (
	layout = template.Must(template.ParseFS(pages, "pages/landing.html"))
	style  = func() string {
		css, err := pages.ReadFile("pages/style.css")
		if err != nil {
			panic(err) // It is part of the program.
		}
		return string(css)
	}()
	// The page works without scripts and loads nothing; its one style sheet is
	// allowed by its hash.
	policy = func() string {
		sum := sha256.Sum256([]byte(style))
		return fmt.Sprintf("default-src 'none'; style-src 'sha256-%s'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
			base64.StdEncoding.EncodeToString(sum[:]))
	}()
)

const (
	maxFormToken = 256
	maxForm      = 8 << 10
)

// flow is what a mail link leads to: a page with a button, and what the button
// does.
type flow struct {
	path     string
	title    string
	message  string
	button   string
	password bool
	done     page
	use      func(ctx context.Context, secret, password string) error
}

func (a *api) flows() map[string]flow {
	ignore := func(use func(context.Context, string) (account.Account, error)) func(context.Context, string, string) error {
		return func(ctx context.Context, secret, _ string) error {
			_, err := use(ctx, secret)
			return err
		}
	}
	return map[string]flow{
		"verify": {
			path: "/verify-email", title: "Confirm your email address", message: "One more click and your address is confirmed.",
			button: "Confirm my address", use: ignore(a.accounts.VerifyEmail),
			done: page{Title: "Your address is confirmed", Message: "Thank you. You can close this page."},
		},
		"reset": {
			path: "/reset-password", title: "Choose a new password", message: "You will be signed out everywhere.", password: true,
			button: "Set my new password", use: a.accounts.ResetPassword,
			done: page{Title: "Your password is changed", Message: "You can sign in with the new one now."},
		},
		"change": {
			path: "/change-email/confirm", title: "Confirm your new email address", message: "Your account will use this address from now on.",
			button: "Use this address", use: ignore(a.accounts.ConfirmEmail),
			done: page{Title: "Your address is changed", Message: "Mail for your account goes to the new address now."},
		},
		"revert": {
			path: "/change-email/revert", title: "Keep your old email address",
			message: "This takes the change back, signs you out everywhere and mails you a link to choose a new password.",
			button:  "Take the change back", use: ignore(a.accounts.RevertEmail),
			done: page{Title: "The change is taken back", Message: "We have mailed you a link to choose a new password."},
		},
	}
}

func (f flow) form(secret string) page {
	return page{Title: f.title, Message: f.message, Action: prefix + f.path, Token: secret, Password: f.password, Button: f.button}
}

// landing shows a button and consumes nothing: mail scanners follow links.
func landing(f flow) web.Handler {
	return func(w http.ResponseWriter, r *http.Request) error {
		secret := r.URL.Query().Get("token")
		if secret == "" || len(secret) > maxFormToken {
			return show(w, http.StatusBadRequest, page{Title: "This link is not complete", Message: "Open it again from the mail, or copy all of it."})
		}
		return show(w, http.StatusOK, f.form(secret))
	}
}

// submit takes the form of a landing page, and passes JSON on.
func submit(f flow, otherwise web.Handler) web.Handler {
	return func(w http.ResponseWriter, r *http.Request) error {
		if !isForm(r) {
			return otherwise(w, r)
		}
		r.Body = http.MaxBytesReader(w, r.Body, maxForm)
		if err := r.ParseForm(); err != nil {
			return show(w, http.StatusBadRequest, page{Title: "This did not work", Message: "Open the link from the mail again."})
		}
		secret := r.PostForm.Get("token")
		err := f.use(r.Context(), secret, r.PostForm.Get("password"))
		if err == nil {
			return show(w, http.StatusOK, f.done)
		}
		p := problem.From(err)
		switch {
		case errors.Is(err, account.ErrTokenExpired), errors.Is(err, account.ErrTokenInvalid):
			return show(w, web.Status(p.Kind), page{Title: "This link does not work any more", Message: p.Message + " If you have used it already, all is well."})
		case p.Kind == problem.Internal:
			return err
		}
		again := f.form(secret)
		again.Fault = p.Message
		if len(p.Fields) > 0 {
			again.Fault = p.Fields[0].Message
		}
		return show(w, web.Status(p.Kind), again)
	}
}

func isForm(r *http.Request) bool {
	kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	return err == nil && kind == "application/x-www-form-urlencoded"
}

func show(w http.ResponseWriter, status int, p page) error {
	p.Style = template.CSS(style) //nolint:gosec // It is part of the program.
	var body bytes.Buffer
	if err := layout.Execute(&body, p); err != nil {
		return fmt.Errorf("render page: %w", err)
	}
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Security-Policy", policy)
	h.Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_, _ = w.Write(body.Bytes()) // The client has gone; there is nobody to tell.
	return nil
}
