package api

import (
	"bytes"
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
	Style   template.CSS
	Title   string
	Message string
	Action  string // where the form posts to; no form if empty
	Token   string
	Button  string
}

var (
	landing = template.Must(template.ParseFS(pages, "pages/landing.html"))
	style   = func() string {
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

const maxFormToken = 256

// verifyPage shows a button and consumes nothing: mail scanners follow links.
func (a *api) verifyPage(w http.ResponseWriter, r *http.Request) error {
	secret := r.URL.Query().Get("token")
	if secret == "" || len(secret) > maxFormToken {
		return show(w, http.StatusBadRequest, page{Title: "This link is not complete", Message: "Open it again from the mail, or copy all of it."})
	}
	return show(w, http.StatusOK, page{
		Title: "Confirm your email address", Message: "One more click and your address is confirmed.",
		Action: prefix + "/verify-email", Token: secret, Button: "Confirm my address",
	})
}

func (a *api) verifyForm(w http.ResponseWriter, r *http.Request) error {
	r.Body = http.MaxBytesReader(w, r.Body, 4<<10)
	if err := r.ParseForm(); err != nil {
		return show(w, http.StatusBadRequest, page{Title: "This did not work", Message: "Open the link from the mail again."})
	}
	_, err := a.accounts.VerifyEmail(r.Context(), r.PostForm.Get("token"))
	switch {
	case err == nil:
		return show(w, http.StatusOK, page{Title: "Your address is confirmed", Message: "Thank you. You can close this page."})
	case errors.Is(err, account.ErrTokenExpired), errors.Is(err, account.ErrTokenInvalid):
		p := problem.From(err)
		return show(w, web.Status(p.Kind), page{Title: "This link does not work any more", Message: p.Message + " If your address is confirmed already, all is well."})
	}
	return err
}

func isForm(r *http.Request) bool {
	kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	return err == nil && kind == "application/x-www-form-urlencoded"
}

func show(w http.ResponseWriter, status int, p page) error {
	p.Style = template.CSS(style) //nolint:gosec // It is part of the program.
	var body bytes.Buffer
	if err := landing.Execute(&body, p); err != nil {
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
