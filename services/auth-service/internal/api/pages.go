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
	"strconv"
	"strings"

	"github.com/headgate/headgate/pkg/problem"
	"github.com/headgate/headgate/pkg/web"
	"github.com/headgate/headgate/services/auth-service/internal/account"
)

//go:embed pages
var pages embed.FS

// page is what the landing pages of mail links show.
type page struct {
	Style   template.CSS
	Product string
	Home    string // where to go on; nowhere if empty
	Title   string
	Message string

	Fault     string // what was wrong with the form
	Action    string // where the form posts to; no form if empty
	Token     string
	Password  bool   // Does the form ask for a new password?
	MinLength int    // of the password
	Username  string // whose password it is
	Button    string
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
	product      = "Headgate"
	maxFormToken = 256
	maxForm      = 8 << 10
)

// flow is what a mail link leads to: a page with a button, and what the button
// does.
type flow struct {
	*api

	path string
	to   account.LinkPurpose
	use  func(ctx context.Context, secret, password string) error

	form page // its message has a place for the address that the link was mailed to
	done page
	// What to do about a link that was used or replaced, that came too late, or
	// whose address another account has.
	void, expired, taken string
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
			api: a, path: "/verify-email", to: account.LinkVerifyEmail, use: ignore(a.accounts.VerifyEmail),
			form:    page{Title: "Confirm your email address", Message: "One more click, and %s is confirmed.", Button: "Confirm my address"},
			done:    page{Title: "Your address is confirmed", Message: "Thank you. There is nothing more to do here."},
			void:    "It was used before, or a newer mail took its place. If you have confirmed your address already, all is well. If not, open the link in the newest mail, or ask for another one where you sign in.",
			expired: "Your address is not confirmed yet. Ask for another link where you sign in.",
		},
		"reset": {
			api: a, path: "/reset-password", to: account.LinkResetPassword, use: a.accounts.ResetPassword,
			form:    page{Title: "Choose a new password", Message: "This is for the account %s. You will be signed out everywhere.", Button: "Set my new password", Password: true},
			done:    page{Title: "Your password is changed", Message: "You were signed out everywhere. Sign in with the new password now."},
			void:    "It was used before, or a newer mail took its place. Ask for another one with “forgot password” where you sign in; at once, if it was not you who used it.",
			expired: "For safety it works for a short time only. Ask for another one with “forgot password” where you sign in.",
		},
		"change": {
			api: a, path: "/change-email/confirm", to: account.LinkChangeEmail, use: ignore(a.accounts.ConfirmEmail),
			form:    page{Title: "Confirm your new email address", Message: "Your account will use %s from now on.", Button: "Use this address"},
			done:    page{Title: "Your address is changed", Message: "Sign in with the new one from now on. Mail for your account goes there as well."},
			void:    "It was used before, a newer mail took its place, or the change was called off. Sign in to see which address your account has, and change it there if it is not the right one.",
			expired: "Your account keeps the address that it has. Sign in and change it there if you still want to.",
			taken:   "Yours keeps the address that it has. Sign in and choose another one, or sign in to the account that has this one.",
		},
		"revert": {
			api: a, path: "/change-email/revert", to: account.LinkRevertEmail, use: ignore(a.accounts.RevertEmail),
			form: page{
				Title: "Keep your old email address", Button: "Take the change back",
				Message: "Your account gets %s back. You are signed out everywhere and get a mail to choose a new password.",
			},
			done:    page{Title: "The change is taken back", Message: "You were signed out everywhere. We have mailed you a link to choose a new password."},
			void:    "It was used before, or another link took the change back. Ask for a new password for this address with “forgot password” where you sign in. If no mail comes, your account has another address: contact support.",
			expired: "A change can be taken back for some days only. Sign in and change the address there; if you cannot, contact support.",
			taken:   "Your account cannot get it back. If it was not you who changed the address, contact support.",
		},
	}
}

// fill returns the form for a link, or what is wrong with the link. It consumes
// nothing.
func (f flow) fill(ctx context.Context, secret string) (page, error) {
	address, err := f.accounts.CheckLink(ctx, f.to, secret)
	if err != nil {
		return page{}, err
	}
	p := f.form
	p.Message = fmt.Sprintf(p.Message, masked(address))
	p.Action, p.Token, p.Username, p.MinLength = prefix+f.path, secret, address, f.accounts.PasswordMinLength()
	return p, nil
}

// masked hides most of an address from whoever looks over a shoulder.
func masked(address string) string {
	local, domain, _ := strings.Cut(address, "@")
	return local[:min(1, len(local))] + "***@" + domain
}

// landing shows a button and consumes nothing: mail scanners follow links.
func landing(f flow) web.Handler {
	return func(w http.ResponseWriter, r *http.Request) error {
		secret := r.URL.Query().Get("token")
		if secret == "" || len(secret) > maxFormToken {
			return f.show(w, http.StatusBadRequest, page{Title: "This link is not complete", Message: "Open it again from the mail, or copy all of it."})
		}
		form, err := f.fill(r.Context(), secret)
		if err != nil {
			return f.refuse(r, err)
		}
		return f.show(w, http.StatusOK, form)
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
			if _, tooLarge := errors.AsType[*http.MaxBytesError](err); tooLarge {
				return f.refuse(r, problem.ErrTooLarge)
			}
			return f.refuse(r, problem.ErrMalformedBody)
		}
		secret := r.PostForm.Get("token")
		err := f.use(r.Context(), secret, r.PostForm.Get("password"))
		if err == nil {
			return f.show(w, http.StatusOK, f.done)
		}
		if !mendable(err) {
			return f.refuse(r, err)
		}
		again, linkErr := f.fill(r.Context(), secret)
		if linkErr != nil {
			return f.refuse(r, linkErr)
		}
		p := problem.From(err)
		again.Fault = p.Message
		if len(p.Fields) > 0 {
			again.Fault = p.Fields[0].Message
		}
		return f.fail(err, again)
	}
}

// mendable says whether the same form can still succeed.
func mendable(err error) bool {
	kind := problem.From(err).Kind
	return kind == problem.Invalid && !errors.Is(err, account.ErrTokenInvalid) || kind == problem.Unavailable
}

// refuse shows what went wrong, and what to do about it.
func (f flow) refuse(r *http.Request, err error) error {
	p := page{Title: "This did not work", Message: "Open the link from the mail again."}
	switch {
	case errors.Is(err, account.ErrTokenInvalid):
		p = page{Title: "This link does not work any more", Message: f.void}
	case errors.Is(err, account.ErrTokenExpired):
		p = page{Title: "This link has expired", Message: f.expired}
	case errors.Is(err, account.ErrEmailTaken):
		p = page{Title: "Another account has this address", Message: f.taken}
	case web.Status(web.ProblemOf(r.Context(), err).Kind) >= http.StatusInternalServerError:
		p.Message = "Something went wrong on our side. Wait a few minutes, then open the link from the mail again."
	}
	return f.fail(err, p)
}

// fail returns err for the edge to answer with a page.
func (f flow) fail(err error, p page) error {
	return web.WithPage(err, func(w http.ResponseWriter, status int) error { return f.show(w, status, p) })
}

func isForm(r *http.Request) bool {
	kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	return err == nil && kind == "application/x-www-form-urlencoded"
}

func (f flow) show(w http.ResponseWriter, status int, p page) error {
	p.Style = template.CSS(style) //nolint:gosec // It is part of the program.
	p.Product, p.Home = product, f.site.AppURL
	var body bytes.Buffer
	if err := layout.Execute(&body, p); err != nil {
		return fmt.Errorf("render page: %w", err)
	}
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Length", strconv.Itoa(body.Len()))
	h.Set("Content-Security-Policy", policy)
	h.Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_, _ = w.Write(body.Bytes()) // The client has gone; there is nobody to tell.
	return nil
}
