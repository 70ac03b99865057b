package api

import (
	"errors"
	"net/http"
	"slices"

	"github.com/headgate/headgate/pkg/problem"
	"github.com/headgate/headgate/pkg/web"
	"github.com/headgate/headgate/services/auth-service/internal/account"
)

// failed shows what was wrong with form n and what to do next: the page again with the form
// that helps, or a message if no form does.
func (l landingPage) failed(r *http.Request, n int, secret string, err error) error {
	helps, text := l.nextForm(n, err)
	if helps < 0 {
		return l.refuse(r, err)
	}
	again, linkErr := l.fill(r.Context(), secret)
	if linkErr != nil {
		return l.refuse(r, linkErr)
	}
	if errors.Is(err, account.ErrProofRequired) {
		again.Forms[n].Field = currentPassword
	}
	again.Forms[0].Focus = false
	again.Forms[helps].Focus, again.Forms[helps].Error = true, text
	if helps != n && !again.Forms[n].Field.Optional {
		again.Forms = slices.Delete(again.Forms, n, n+1) // Nobody can submit it with success.
	}
	return l.fail(err, again)
}

// nextForm returns the form to go on with after form n failed, and the text about the
// failure; -1 if no form helps.
func (l landingPage) nextForm(n int, err error) (helps int, text string) {
	p := problem.From(err)
	switch {
	case errors.Is(err, account.ErrResetRequired):
		return slices.IndexFunc(l.forms, func(f form) bool { return f.Field.New }), l.limited
	case !retryable(err):
		return -1, ""
	case len(p.Fields) > 0:
		return n, p.Fields[0].Message
	}
	return n, p.Message
}

// retryable reports whether submitting a form again can succeed.
func retryable(err error) bool {
	for _, other := range []error{account.ErrProofRequired, account.ErrCurrentPassword, account.ErrConflict} {
		if errors.Is(err, other) {
			return true
		}
	}
	kind := problem.From(err).Kind
	return kind == problem.Invalid && !errors.Is(err, account.ErrTokenInvalid) || kind == problem.Unavailable || kind == problem.TooManyRequests
}

// refuse shows a page without forms that says what is wrong and what to do next.
func (l landingPage) refuse(r *http.Request, err error) error {
	p, _ := l.advice(web.ProblemOf(r.Context(), err))
	return l.fail(err, p)
}

// advice returns the page about a problem that no form helps with, and whether the page is
// about this problem in particular.
func (l landingPage) advice(p *problem.Problem) (shown page, known bool) {
	const title, again = "This did not work", "Open the link in the email again."
	switch {
	case errors.Is(p, account.ErrTokenInvalid):
		return page{Title: "This link is no longer valid", Message: l.used}, true
	case errors.Is(p, account.ErrTokenExpired):
		return page{Title: "This link has expired", Message: l.expired}, true
	case errors.Is(p, account.ErrEmailTaken):
		return page{Title: "Another account uses this address", Message: l.taken}, true
	case errors.Is(p, account.ErrResetRequired):
		return page{Title: "Too many failed sign-in attempts", Message: l.limited}, true
	case web.Status(p.Kind) >= http.StatusInternalServerError:
		return page{Title: title, Message: "Something went wrong on our side. Wait a few minutes, then open the link in the email again."}, true
	}
	malformed := errors.Is(p, problem.ErrMalformedBody) || errors.Is(p, problem.ErrTooLarge) || errors.Is(p, problem.ErrRequestTimeout)
	return page{Title: title, Message: again}, malformed
}

// fail returns err with the page that the edge answers.
func (l landingPage) fail(err error, p page) error {
	return web.WithPage(err, func(w http.ResponseWriter, status int) error { return l.render(w, status, p) })
}
