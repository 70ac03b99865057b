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
	"net/url"
	"strconv"
	"strings"

	"github.com/headgate/headgate/pkg/problem"
	"github.com/headgate/headgate/pkg/web"
	"github.com/headgate/headgate/services/auth-service/internal/account"
)

//go:embed pages
var pages embed.FS

// page is the content of a landing page.
type page struct {
	Style   template.CSS
	Product string
	Home    string // the URL of the application; no link if empty
	Title   string
	Message string

	FormError string // what was wrong with the submitted form
	Action    string // the URL that the form posts to; no form if empty
	Token     string
	Password  bool   // whether the form asks for a new password
	MinLength int    // of the password
	Username  string // the account, for password managers
	Passkeys  bool   // whether the form offers to remove all passkeys
	Button    string
}

var (
	layout = template.Must(template.ParseFS(pages, "pages/landing.html"))
	style  = func() string {
		css, err := pages.ReadFile("pages/style.css")
		if err != nil {
			panic(err) // The file is embedded.
		}
		return string(css)
	}()
	// The page has no scripts and loads nothing. Its style sheet is allowed by hash.
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

// landingPage is the landing page of a link: a form and what submitting it does.
type landingPage struct {
	*api

	path    string
	purpose account.LinkPurpose
	use     func(ctx context.Context, form url.Values) (note string, err error)

	form page // its message has a verb for the address that the link was mailed to
	done page
	// What to do about a link that was used or replaced, that has expired, or whose
	// address another account uses.
	used, expired, taken string
}

func (a *api) landingPages() map[string]landingPage {
	ignore := func(use func(context.Context, string) (account.Account, error)) func(context.Context, url.Values) (string, error) {
		return func(ctx context.Context, form url.Values) (string, error) {
			_, err := use(ctx, form.Get("token"))
			return "", err
		}
	}
	return map[string]landingPage{
		"verify": {
			api: a, path: "/verify-email", purpose: account.LinkVerifyEmail, use: ignore(a.accounts.VerifyEmail),
			form:    page{Title: "Confirm your email address", Message: "Click the button to confirm %s.", Button: "Confirm address"},
			done:    page{Title: "Email address confirmed", Message: "Thank you. You do not need to do anything else."},
			used:    "It was already used, or a newer email replaced it. If your address is already confirmed, you are all set. Otherwise, use the link in the newest email, or request a new one on the sign-in page.",
			expired: "Your address is not confirmed yet. Request a new link on the sign-in page.",
		},
		"reset": {
			api: a, path: "/reset-password", purpose: account.LinkResetPassword, use: a.resetByForm,
			form:    page{Title: "Choose a new password", Message: "This is for the account %s. You will be signed out on all devices.", Button: "Set new password", Password: true, Passkeys: true},
			done:    page{Title: "Password changed", Message: "You were signed out on all devices. Sign in with your new password."},
			used:    "It was already used, or a newer email replaced it. Request a new one with “Forgot password” on the sign-in page. If you did not use it, request one now.",
			expired: "For security, it works for a short time only. Request a new one with “Forgot password” on the sign-in page.",
		},
		"change": {
			api: a, path: "/change-email/confirm", purpose: account.LinkChangeEmail, use: ignore(a.accounts.ConfirmEmail),
			form:    page{Title: "Confirm your new email address", Message: "Your account will use %s from now on.", Button: "Use this address"},
			done:    page{Title: "Email address changed", Message: "Sign in with the new address from now on. Emails for your account go there as well."},
			used:    "It was already used, a newer email replaced it, or the change was cancelled. Sign in to see which address your account uses, and change it there if it is wrong.",
			expired: "Your account keeps its current address. Sign in to request the change again.",
			taken:   "Your account keeps its current address. Sign in and choose another one, or sign in to the account that uses this one.",
		},
		"revert": {
			api: a, path: "/change-email/revert", purpose: account.LinkRevertEmail, use: ignore(a.accounts.RevertEmail),
			form: page{
				Title: "Undo the change of your email address", Button: "Undo the change",
				Message: "Your account will use %s again. You will be signed out on all devices, and we will email you a link to choose a new password.",
			},
			done:    page{Title: "Change undone", Message: "You were signed out on all devices. We have emailed you a link to choose a new password."},
			used:    "It was already used, or another link undid the change. Request a new password for this address with “Forgot password” on the sign-in page. If no email arrives, your account has another address: contact support.",
			expired: "A change can be undone for a limited time only. Sign in and change the address there. If you cannot sign in, contact support.",
			taken:   "Your account cannot use it again. If you did not change the address, contact support.",
		},
	}
}

// resetByForm resets a password and says what can still sign in.
func (a *api) resetByForm(ctx context.Context, form url.Values) (string, error) {
	done, err := a.accounts.ResetPassword(ctx, form.Get("token"), account.NewPassword{
		Password: form.Get("password"), RemovePasskeys: form.Get("removePasskeys") != "",
	})
	if err != nil || len(done.Passkeys) == 0 {
		return "", err
	}
	var list []string
	for _, f := range done.Passkeys {
		list = append(list, "“"+f.Name+"”")
	}
	return " These passkeys can still sign in: " + strings.Join(list, ", ") + ".", nil
}

// fill returns the form for a link, or why the link cannot be used. It does not use
// the link.
func (l landingPage) fill(ctx context.Context, secret string) (page, error) {
	address, err := l.accounts.CheckLink(ctx, l.purpose, secret)
	if err != nil {
		return page{}, err
	}
	p := l.form
	p.Message = fmt.Sprintf(p.Message, masked(address))
	p.Action, p.Token, p.Username, p.MinLength = prefix+l.path, secret, address, l.accounts.PasswordMinLength()
	return p, nil
}

// masked hides most of an address from people who can see the screen.
func masked(address string) string {
	local, domain, _ := strings.Cut(address, "@")
	return local[:min(1, len(local))] + "***@" + domain
}

// show shows the form. It does not use the link, because mail scanners follow
// links.
func show(l landingPage) web.Handler {
	return func(w http.ResponseWriter, r *http.Request) error {
		secret := r.URL.Query().Get("token")
		if secret == "" || len(secret) > maxFormToken {
			return l.render(w, http.StatusBadRequest, page{Title: "This link is incomplete", Message: "Open it again from the email, or copy the whole link."})
		}
		form, err := l.fill(r.Context(), secret)
		if err != nil {
			return l.refuse(r, err)
		}
		return l.render(w, http.StatusOK, form)
	}
}

// submit handles the form of a landing page. Requests with JSON go to otherwise.
func submit(l landingPage, otherwise web.Handler) web.Handler {
	return func(w http.ResponseWriter, r *http.Request) error {
		if !isForm(r) {
			return otherwise(w, r)
		}
		r.Body = http.MaxBytesReader(w, r.Body, maxForm)
		if err := r.ParseForm(); err != nil {
			if _, tooLarge := errors.AsType[*http.MaxBytesError](err); tooLarge {
				return l.refuse(r, problem.ErrTooLarge)
			}
			return l.refuse(r, problem.ErrMalformedBody)
		}
		secret := r.PostForm.Get("token")
		note, err := l.use(r.Context(), r.PostForm)
		if err == nil {
			done := l.done
			done.Message += note
			return l.render(w, http.StatusOK, done)
		}
		if !retryable(err) {
			return l.refuse(r, err)
		}
		again, linkErr := l.fill(r.Context(), secret)
		if linkErr != nil {
			return l.refuse(r, linkErr)
		}
		p := problem.From(err)
		again.FormError = p.Message
		if len(p.Fields) > 0 {
			again.FormError = p.Fields[0].Message
		}
		return l.fail(err, again)
	}
}

// retryable reports whether submitting the form again can succeed.
func retryable(err error) bool {
	kind := problem.From(err).Kind
	return kind == problem.Invalid && !errors.Is(err, account.ErrTokenInvalid) || kind == problem.Unavailable
}

// refuse shows what is wrong and what to do next.
func (l landingPage) refuse(r *http.Request, err error) error {
	p := page{Title: "This did not work", Message: "Open the link in the email again."}
	switch {
	case errors.Is(err, account.ErrTokenInvalid):
		p = page{Title: "This link is no longer valid", Message: l.used}
	case errors.Is(err, account.ErrTokenExpired):
		p = page{Title: "This link has expired", Message: l.expired}
	case errors.Is(err, account.ErrEmailTaken):
		p = page{Title: "Another account uses this address", Message: l.taken}
	case web.Status(web.ProblemOf(r.Context(), err).Kind) >= http.StatusInternalServerError:
		p.Message = "Something went wrong on our side. Wait a few minutes, then open the link in the email again."
	}
	return l.fail(err, p)
}

// fail returns err with the page that the edge answers.
func (l landingPage) fail(err error, p page) error {
	return web.WithPage(err, func(w http.ResponseWriter, status int) error { return l.render(w, status, p) })
}

func isForm(r *http.Request) bool {
	kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	return err == nil && kind == "application/x-www-form-urlencoded"
}

func (l landingPage) render(w http.ResponseWriter, status int, p page) error {
	p.Style = template.CSS(style) //nolint:gosec // The style sheet is embedded.
	p.Product, p.Home = product, l.site.AppURL
	var body bytes.Buffer
	if err := layout.Execute(&body, p); err != nil {
		return fmt.Errorf("render page: %w", err)
	}
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Length", strconv.Itoa(body.Len()))
	web.SetPageHeaders(h, policy)
	h.Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_, _ = w.Write(body.Bytes()) // An error means that the client has disconnected.
	return nil
}
