package api

import (
	"bytes"
	"context"
	"crypto/sha256"
	"embed"
	"encoding/base64"
	"fmt"
	"html/template"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

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

	Forms     []form // what the page offers
	Token     string
	MinLength int    // of a new password
	Username  string // the account, for password managers
}

// form is a form of a landing page.
type form struct {
	Path    string // after that of the page
	Choice  string // what opens the form; it is open if empty
	Message string
	Field   field
	// Whether it offers to remove all passkeys.
	Passkeys bool
	Error    string // what was wrong with it when it was submitted
	Focus    bool   // whether its field gets the focus
	Button   string
	Action   string // the URL that it posts to

	use  func(ctx context.Context, secret string, sent url.Values) (note string, err error)
	done page
}

// field is the password that a form asks for.
type field struct {
	ID, Label, Hint string
	Complete        string // whether it is the current password or a new one, for password managers
	Optional, New   bool
}

var (
	currentPassword  = field{ID: "password", Label: "Password", Complete: "current-password"}
	optionalPassword = field{
		ID: "password", Label: "Your password (optional)", Complete: "current-password", Optional: true,
		Hint: "With it, your passkeys and your authenticator app stay when you choose a new password by email later. If you do not know the password, leave it empty.",
	}
	newPasswordField = field{ID: "new-password", Label: "New password", Complete: "new-password", New: true}
)

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
	maxFormToken = 256
	maxForm      = 8 << 10
)

// landingPage is the landing page of a link: what it offers to do with the link.
type landingPage struct {
	*api

	path    string
	purpose account.LinkPurpose

	title   string
	message string // has a verb for the address that the link was mailed to
	forms   []form // the first one is what the link is for
	// What to do about a link that was used or replaced, that has expired, or whose
	// address another account uses.
	used, expired, taken string
	// What to do if passwords are not accepted from this network: for the form that sets a
	// new one, or a page of its own if there is no such form.
	limited string
}

func (a *api) landingPages() map[string]landingPage {
	changeLimited := "Your account keeps its current address. Open the link in the email in a network where you are signed in. Otherwise choose a new password with “Forgot password” on the sign-in page, then request the change again."
	if a.accounts.Verification() == account.VerifyByLink {
		changeLimited = "Open the link in the email again and leave the password empty."
	}
	return map[string]landingPage{
		"verify": a.verifyPage(),
		"reset": {
			api: a, path: "/reset-password", purpose: account.LinkResetPassword,
			title: "Choose a new password", message: "This is for the account %s. You will be signed out on all devices.",
			forms: []form{{
				Button: "Set new password", Field: newPasswordField, Passkeys: true, use: a.resetByForm,
				done: page{Title: "Password changed", Message: "You were signed out on all devices. Sign in with your new password."},
			}},
			used:    "It was already used, or a newer email replaced it. Request a new one with “Forgot password” on the sign-in page. If you did not use it, request one now.",
			expired: "For security, it works for a short time only. Request a new one with “Forgot password” on the sign-in page.",
		},
		"change": {
			api: a, path: "/change-email/confirm", purpose: account.LinkChangeEmail,
			title: "Confirm your new email address", message: "Your account will use %s from now on.",
			forms: []form{{
				Button: "Use this address", Field: optionalPassword, use: withPossession(a.accounts.ConfirmEmail),
				done: page{Title: "Email address changed", Message: "Sign in with the new address from now on. Emails for your account go there as well."},
			}},
			used:    "It was already used, a newer email replaced it, or the change was cancelled. Sign in to see which address your account uses, and change it there if it is wrong.",
			expired: "Your account keeps its current address. Sign in to request the change again.",
			taken:   "Your account keeps its current address. Sign in and choose another one, or sign in to the account that uses this one.",
			limited: changeLimited,
		},
		"revert": {
			api: a, path: "/change-email/revert", purpose: account.LinkRevertEmail,
			title:   "Undo the change of your email address",
			message: "Your account will use %s again. You will be signed out on all devices, and we will email you a link to choose a new password.",
			forms: []form{{
				Button: "Undo the change", use: withPossession(a.accounts.RevertEmail),
				done: page{Title: "Change undone", Message: "You were signed out on all devices. We have emailed you a link to choose a new password."},
			}},
			used:    "It was already used, or another link undid the change. Request a new password for this address with “Forgot password” on the sign-in page. If no email arrives, your account has another address: contact support.",
			expired: "A change can be undone for a limited time only. Sign in and change the address there. If you cannot sign in, contact support.",
			taken:   "Your account cannot use it again. If you did not change the address, contact support.",
			limited: "Open the link in the email in a network where you are signed in. Otherwise choose a new password with “Forgot password” on the sign-in page, then open the link again.",
		},
	}
}

// verifyPage also serves people who cannot know the password, because another person
// signed up with their address.
func (a *api) verifyPage() landingPage {
	message, field := "Enter the password that you signed up with to confirm %s.", currentPassword
	limited := "Too many failed sign-in attempts. For security, your password is not accepted from this network. Choose a new one."
	if a.accounts.Verification() == account.VerifyByLink {
		message, field = "Click the button to confirm %s.", optionalPassword
		limited += " Or confirm the address without a password."
	}
	return landingPage{
		api: a, path: "/verify-email", purpose: account.LinkVerifyEmail,
		title: "Confirm your email address", message: message,
		forms: []form{{
			Button: "Confirm address", Field: field, use: withPossession(a.accounts.VerifyEmail),
			done: page{Title: "Email address confirmed", Message: "Thank you. You do not need to do anything else."},
		}, {
			Path: "/take-over", Choice: "This is my account: choose a new password",
			Message: "All devices will be signed out. Passkeys and authenticator apps that were added to the account will be removed.",
			Button:  "Set password and confirm", Field: newPasswordField, use: func(ctx context.Context, secret string, sent url.Values) (string, error) {
				_, err := a.accounts.TakeOver(ctx, secret, sent.Get("password"))
				return "", err
			},
			done: page{Title: "Password changed", Message: "Your address is confirmed. You were signed out on all devices. Sign in with your new password."},
		}, {
			Path: "/reject", Choice: "This was not me",
			Message: "Someone else used your address. The account will be deleted. You can sign up yourself at any time.",
			Button:  "Delete the account",
			use: func(ctx context.Context, secret string, _ url.Values) (string, error) {
				return "", a.accounts.RejectSignUp(ctx, secret)
			},
			done: page{Title: "Account deleted", Message: "Thank you. Your address belongs to no account now."},
		}},
		used:    "It was already used, or a newer email replaced it. If your address is already confirmed, you are all set. Otherwise, use the link in the newest email, or request a new one on the sign-in page.",
		expired: "Your address is not confirmed yet. Request a new link on the sign-in page.",
		limited: limited,
	}
}

// withPossession returns use for a form, whose password shows who has the account.
func withPossession(use func(context.Context, string, account.Possession) (account.Account, error)) func(context.Context, string, url.Values) (string, error) {
	return func(ctx context.Context, secret string, sent url.Values) (string, error) {
		_, err := use(ctx, secret, possessionOf(ctx, sent.Get("password")))
		return "", err
	}
}

// resetByForm resets a password and says what can still sign in.
func (a *api) resetByForm(ctx context.Context, secret string, sent url.Values) (string, error) {
	done, err := a.accounts.ResetPassword(ctx, secret, account.NewPassword{
		Password: sent.Get("password"), RemovePasskeys: sent.Get("removePasskeys") != "",
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

// fill returns the page for a link, or why the link cannot be used. It does not use
// the link.
func (l landingPage) fill(ctx context.Context, secret string) (page, error) {
	address, err := l.accounts.CheckLink(ctx, l.purpose, secret)
	if err != nil {
		return page{}, err
	}
	p := page{
		Title: l.title, Message: fmt.Sprintf(l.message, masked(address)),
		Token: secret, Username: address, MinLength: l.accounts.PasswordMinLength(), Forms: slices.Clone(l.forms),
	}
	for i := range p.Forms {
		p.Forms[i].Action = prefix + l.path + p.Forms[i].Path
	}
	p.Forms[0].Focus = !p.Forms[0].Field.Optional
	return p, nil
}

// masked hides most of an address from people who can see the screen.
func masked(address string) string {
	local, domain, _ := strings.Cut(address, "@")
	return local[:min(1, len(local))] + "***@" + domain
}

// pageLink are the parameters of a link in a mail.
var pageLink = web.Takes("token").OrIgnores()

// show shows the page. It does not use the link, because mail scanners follow
// links.
func show(l landingPage) web.Handler {
	return func(w http.ResponseWriter, r *http.Request) error {
		secret := web.QueryOf(r)["token"]
		if secret == "" || len(secret) > maxFormToken {
			return l.render(w, http.StatusBadRequest, page{Title: "This link is incomplete", Message: "Open it again from the email, or copy the whole link."})
		}
		p, err := l.fill(r.Context(), secret)
		if err != nil {
			return l.refuse(r, err)
		}
		return l.render(w, http.StatusOK, p)
	}
}

// submit handles the form of a landing page with a path. Requests with JSON go to
// otherwise.
func submit(l landingPage, path string, otherwise web.Handler) web.Handler {
	n := slices.IndexFunc(l.forms, func(f form) bool { return f.Path == path })
	return func(w http.ResponseWriter, r *http.Request) error {
		if !isForm(r) {
			return otherwise(w, r)
		}
		r.Body = http.MaxBytesReader(w, r.Body, maxForm)
		if err := r.ParseForm(); err != nil {
			return l.refuse(r, web.BodyFault(err))
		}
		secret := r.PostForm.Get("token")
		note, err := l.forms[n].use(r.Context(), secret, r.PostForm)
		if err == nil {
			done := l.forms[n].done
			done.Message += note
			return l.render(w, http.StatusOK, done)
		}
		return l.failed(r, n, secret, err)
	}
}

func isForm(r *http.Request) bool {
	kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	return err == nil && kind == "application/x-www-form-urlencoded"
}

func (l landingPage) render(w http.ResponseWriter, status int, p page) error {
	p.Style = template.CSS(style) //nolint:gosec // The style sheet is embedded.
	p.Product, p.Home = l.site.Brand, l.site.AppURL
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
